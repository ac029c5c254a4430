"""The sending identity: what receivers know a sender by. It outlives every host."""

import aws_cdk as cdk
from aws_cdk import aws_logs as logs
from aws_cdk import aws_route53 as route53
from constructs import Construct

from stacks.dkim_keys import DkimKeys
from stacks.encrypted_log_group import EncryptedLogGroup
from stacks.environment import Environment
from stacks.reverse_dns import ReverseDns
from stacks.sending_address import SendingAddress

# Long enough that receivers' resolvers keep it, short enough to repair a mistake within the hour.
# Keys change by adding one and deploying before it is used, so nothing waits for it.
TTL = cdk.Duration.hours(1)
# Except where the addresses are named. AWS looks whether the A record has a new one before it sets
# the reverse DNS, and receivers that remember the SPF record forget it while the new zone's NAT
# gateway and host, which the same deployment makes, are not there yet.
ADDRESS_TTL = cdk.Duration.minutes(1)


class SendingIdentity(cdk.Stack):
    """Elastic IPs, their reverse DNS, the DKIM keys, and the A, SPF, DKIM and DMARC records.

    addresses: SendingAddress by availability zone. dkim: the keys.
    """

    def __init__(self, scope: Construct, construct_id: str, *, settings: Environment) -> None:
        super().__init__(
            scope,
            construct_id,
            description=f"Addresses, DNS records and DKIM keys of {settings.sending_domain}",
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
                name=f"{settings.sending_domain} {zone}",
                environment=settings.name,
                existing=settings.elastic_ips.get(zone),
                removal_policy=removal_policy,
            )
            for zone in settings.availability_zones
        }
        function_log = EncryptedLogGroup(
            self,
            "FunctionLog",
            name=f"/postern/{settings.name}/functions",
            retention=logs.RetentionDays.ONE_MONTH,
        ).log_group
        self.dkim = DkimKeys(
            self,
            "Dkim",
            domain=settings.sending_domain,
            environment=settings.name,
            selectors=settings.dkim.selectors,
            removal_policy=removal_policy,
            log_group=function_log,
        )
        # Exported whether it signs or not. Otherwise switching `dkim.signing` would take away an
        # export that the deployed mail hosts still import, which CloudFormation refuses.
        for key in self.dkim.by_selector.values():
            self.export_value(key.secret_arn)
        self._add_records(settings, function_log)

    def _add_records(self, settings: Environment, function_log: logs.ILogGroup) -> None:
        # The records go with the stack even when the identity is kept: a record left behind would
        # make the next deployment fail, because it exists already.
        domain = settings.sending_domain
        addresses = [address.address for address in self.addresses.values()]
        zone = route53.PublicHostedZone.from_public_hosted_zone_attributes(
            self,
            "HostedZone",
            hosted_zone_id=settings.hosted_zone.id,
            zone_name=settings.hosted_zone.name,
        )
        a_record = route53.ARecord(
            self,
            "A",
            zone=zone,
            record_name=f"{domain}.",
            target=route53.RecordTarget.from_ip_addresses(*addresses),
            ttl=ADDRESS_TTL,
        )
        ReverseDns(
            self,
            "ReverseDns",
            domain=domain,
            environment=settings.name,
            addresses=self.addresses,
            a_record=a_record,
            log_group=function_log,
        )

        spf_record = f'"{_spf_record(addresses)}"'
        self._add_txt_record("Spf", zone, domain, spf_record, ttl=ADDRESS_TTL)
        dkim_names = []
        for selector, key in self.dkim.by_selector.items():
            dkim_names.append(f"{selector}._domainkey.{domain}")
            self._add_txt_record(f"Dkim-{selector}", zone, dkim_names[-1], key.record)
        self._add_txt_record("Dmarc", zone, f"_dmarc.{domain}", f'"{_dmarc_record(settings)}"')

        cdk.CfnOutput(
            self,
            "SendingDomain",
            value=domain,
            description="Host name, HELO name, reverse DNS, and domain of From:",
        )
        cdk.CfnOutput(
            self,
            "ElasticIps",
            value=", ".join(addresses),
            description="Where mail comes from; name them in the port 25 request",
        )
        cdk.CfnOutput(
            self,
            "DkimRecords",
            value=", ".join(dkim_names),
            description="Where receivers find the public keys",
        )

    def _add_txt_record(
        self,
        construct_id: str,
        zone: route53.IHostedZone,
        name: str,
        value: str,
        *,
        ttl: cdk.Duration = TTL,
    ) -> None:
        # RecordSet and not TxtRecord, which would cut through an address's token and quote the DKIM
        # record, quoted already, once more. `value` is zone-file text: quoted strings.
        route53.RecordSet(
            self,
            construct_id,
            zone=zone,
            record_name=f"{name}.",
            record_type=route53.RecordType.TXT,
            target=route53.RecordTarget.from_values(value),
            ttl=ttl,
        )


def _spf_record(addresses: list[str]) -> str:
    """RFC 7208. One string of a TXT record holds 255 bytes; six addresses take 131."""
    mechanisms = " ".join(f"ip4:{address}" for address in addresses)
    return f"v=spf1 {mechanisms} -all"


def _dmarc_record(settings: Environment) -> str:
    """RFC 9989. Strict alignment: one name is From:, envelope sender and DKIM's `d=`."""
    dmarc = settings.dmarc
    return f"v=DMARC1; p={dmarc.policy}; adkim=s; aspf=s; rua=mailto:{dmarc.report_address}"
