"""The sending identity: what receivers know a sender by. It outlives every host."""

import aws_cdk as cdk
from aws_cdk import aws_route53 as route53
from constructs import Construct

from stacks.dkim_keys import DkimKeys
from stacks.environment import Environment
from stacks.reverse_dns import ReverseDns
from stacks.sending_address import SendingAddress

# Long enough that receivers' resolvers keep it, short enough to repair a mistake within the hour.
# A, SPF and DKIM change only with a zone or a selector, and both are added before they are used.
TTL = cdk.Duration.hours(1)


class SendingIdentity(cdk.Stack):
    """Elastic IPs, their reverse DNS, the DKIM keys, and the A, SPF, DKIM and DMARC records.

    addresses: SendingAddress by availability zone; keys: DkimKeys.
    """

    def __init__(
        self, scope: Construct, id: str, *, settings: Environment, stack_name: str
    ) -> None:
        domain = settings.sending_domain
        super().__init__(
            scope,
            id,
            stack_name=stack_name,
            env=cdk.Environment(account=settings.account, region=settings.region),
            description=f"Addresses, DNS records and DKIM keys of {domain}",
            # An address's reputation takes weeks to earn and a mistyped command to lose.
            termination_protection=settings.keep_identity,
        )
        removal_policy = (
            # A creation that fails leaves nothing behind; anything later leaves the identity.
            cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE
            if settings.keep_identity
            else cdk.RemovalPolicy.DESTROY
        )
        self.addresses = {
            zone: SendingAddress(
                self,
                zone,
                name=f"{domain} {zone}",
                existing=settings.elastic_ips.get(zone),
                removal_policy=removal_policy,
            )
            for zone in settings.availability_zones
        }
        self.keys = DkimKeys(
            self,
            "Dkim",
            domain=domain,
            selectors=settings.dkim.selectors,
            removal_policy=removal_policy,
        )
        # Exported whether it signs or not. Otherwise switching `dkim.signing` would take away an export
        # that the deployed mail hosts still import, which CloudFormation refuses.
        for key in self.keys.keys.values():
            self.export_value(key.secret_arn)

        # The records go with the stack even when the identity is kept: a record left behind makes the
        # next deployment fail because it exists already, and is made again from the settings anyway.
        zone = route53.PublicHostedZone.from_public_hosted_zone_attributes(
            self,
            "HostedZone",
            hosted_zone_id=settings.hosted_zone.id,
            zone_name=settings.hosted_zone.name,
        )
        addresses = [address.address for address in self.addresses.values()]
        a_record = route53.ARecord(
            self,
            "A",
            zone=zone,
            record_name=f"{domain}.",
            target=route53.RecordTarget.from_ip_addresses(*addresses),
            ttl=TTL,
        )
        reverse_dns = ReverseDns(self, "ReverseDns", domain=domain, addresses=self.addresses)
        reverse_dns.node.add_dependency(a_record)

        mechanisms = " ".join(f"ip4:{address}" for address in addresses)
        self._txt_record("Spf", zone, domain, f'"v=spf1 {mechanisms} -all"')
        for key in self.keys.keys.values():
            name = f"{key.selector}._domainkey.{domain}"
            self._txt_record(f"Dkim-{key.selector}", zone, name, key.record)
        self._txt_record("Dmarc", zone, f"_dmarc.{domain}", f'"{_dmarc_record(settings)}"')

        self._output("SendingDomain", domain, "Host name, HELO name and domain of the senders")
        self._output("ElasticIps", ",".join(addresses), "What to name in the port 25 request")
        for key in self.keys.keys.values():
            self._output(
                f"DkimSecret-{key.selector}", key.secret_arn, f"Private key of {key.selector}"
            )

    def _txt_record(self, id: str, zone: route53.IHostedZone, name: str, value: str) -> None:
        # RecordSet and not TxtRecord, which would cut through the addresses' tokens and quote the DKIM
        # record, quoted already, a second time. `value` is zone-file text of quoted strings.
        route53.RecordSet(
            self,
            id,
            zone=zone,
            record_name=f"{name}.",
            record_type=route53.RecordType.TXT,
            target=route53.RecordTarget.from_values(value),
            ttl=TTL,
        )

    def _output(self, id: str, value: str, description: str) -> None:
        cdk.CfnOutput(self, id.replace("-", ""), value=value, description=description)


def _dmarc_record(settings: Environment) -> str:
    """RFC 9989, section 4.7. Strict alignment: the one name is From:, envelope sender and `d=`."""
    dmarc = settings.dmarc
    return f"v=DMARC1; p={dmarc.policy}; adkim=s; aspf=s; rua=mailto:{dmarc.report_address}"
