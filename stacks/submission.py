"""Submission: how other hosts of the VPC, which the environment names, hand over their mail."""

import json
from collections.abc import Mapping
from typing import Final

import aws_cdk as cdk
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticloadbalancingv2 as elbv2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_route53_targets as targets
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

import user_data
from stacks.acknowledgement import acknowledge
from stacks.dkim_keys import via_secrets_manager
from stacks.environment import RFC_1918, RFC_6598, Clients, Environment

SUBMISSION_PORT: Final = 587
SMTP_PORT: Final = 25
# user_data/clients/submission-health.socket
HEALTH_PORT: Final = 8587
# A client that is in the middle of a message may finish it; a deployment waits for that.
DRAINING: Final = cdk.Duration.seconds(60)
PASSWORD_LENGTH: Final = 32


class Submission(Construct):
    """An internal load balancer under a name of its own, its certificate, and clients' passwords.

    Clients reach the load balancer only, from the networks and security groups that the environment
    names, and the hosts are reached by the load balancer only. It passes TCP on as it comes, with
    the client's address: TLS and passwords are the hosts' matter.

    load_balancer_name, load_balancer_full_name, target_group_full_name: tokens.
    secret_arns: tokens, by client.
    host_settings: what the hosts need to know.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Environment,
        clients: Clients,
        vpc: ec2.IVpc,
        private_subnets: Mapping[str, ec2.ISubnet],
        host_security_group: ec2.ISecurityGroup,
        encryption_key: kms.IKey,
    ) -> None:
        super().__init__(scope, construct_id)
        self._settings = settings
        self._clients = clients
        ports = [SUBMISSION_PORT, *([SMTP_PORT] if clients.port_25 else [])]

        self._target_group = self._hosts(vpc)
        load_balancer = elbv2.NetworkLoadBalancer(
            self,
            "LoadBalancer",
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnets=list(private_subnets.values())),
            internet_facing=False,
            security_groups=[self._security_group(vpc, host_security_group, ports)],
            # A zone whose host is away takes no mail less: another zone's host gets it.
            cross_zone_enabled=True,
        )
        acknowledge(
            load_balancer,
            "AwsSolutions-ELB2",
            "A Network Load Balancer logs TLS connections only, which it ends itself; here the "
            "hosts do, and their mail log and the VPC's flow log have each client.",
        )
        for port in ports:
            load_balancer.add_listener(
                f"Port{port}", port=port, default_target_groups=[self._target_group]
            )
        self.load_balancer_name = load_balancer.load_balancer_dns_name
        self.load_balancer_full_name = load_balancer.load_balancer_full_name
        self.target_group_full_name = self._target_group.target_group_full_name

        zone = route53.PublicHostedZone.from_public_hosted_zone_attributes(
            self,
            "HostedZone",
            hosted_zone_id=settings.hosted_zone.id,
            zone_name=settings.hosted_zone.name,
        )
        route53.ARecord(
            self,
            "A",
            zone=zone,
            record_name=f"{settings.submission_name}.",
            target=route53.RecordTarget.from_alias(targets.LoadBalancerTarget(load_balancer)),
        )
        certificate = acm.Certificate(
            self,
            "Certificate",
            domain_name=settings.submission_name,
            validation=acm.CertificateValidation.from_dns(zone),
            # The hosts end TLS: STARTTLS comes in the middle of a conversation, which no load
            # balancer speaks.
            allow_export=True,
        )
        self._certificate_arn = certificate.certificate_arn
        self._encryption_key_arn = encryption_key.key_arn
        self.secret_arns = {name: self._password(name) for name in clients.credentials}
        self.host_settings = user_data.ClientSettings(
            networks=_networks(clients),
            connections=clients.connections,
            connections_per_minute=clients.connections_per_minute,
            name=settings.submission_name,
            certificate_arn=self._certificate_arn,
            secret_arns=tuple(self.secret_arns.values()),
        )

    def add_host(self, group: autoscaling.AutoScalingGroup, role: iam.Role) -> None:
        """Let the group's host take clients' mail, and its role get what that takes."""
        group.attach_to_network_target_group(self._target_group)
        secret_arns = list(self.secret_arns.values())
        for sid, action, resources, conditions in (
            ("ExportCertificate", "acm:ExportCertificate", [self._certificate_arn], None),
            ("ReadPasswords", "secretsmanager:GetSecretValue", secret_arns, None),
            (
                "DecryptPasswords",
                "kms:Decrypt",
                [self._encryption_key_arn],
                {
                    "kms:ViaService": via_secrets_manager(role),
                    "kms:EncryptionContext:SecretARN": secret_arns,
                },
            ),
        ):
            role.add_to_policy(
                iam.PolicyStatement(
                    sid=sid,
                    actions=[action],
                    resources=resources,
                    conditions={"StringEquals": conditions} if conditions else None,
                )
            )

    def _hosts(self, vpc: ec2.IVpc) -> elbv2.NetworkTargetGroup:
        return elbv2.NetworkTargetGroup(
            self,
            "Hosts",
            vpc=vpc,
            port=SUBMISSION_PORT,
            protocol=elbv2.Protocol.TCP,
            target_type=elbv2.TargetType.INSTANCE,
            # The host's own list of networks and its limits go by it.
            preserve_client_ip=True,
            deregistration_delay=DRAINING,
            connection_termination=True,
            # Not a connection to port 587, which would succeed while the signer is away.
            health_check=elbv2.HealthCheck(
                protocol=elbv2.Protocol.HTTP,
                port=str(HEALTH_PORT),
                path="/",
                healthy_http_codes="200",
                interval=cdk.Duration.seconds(10),
                timeout=cdk.Duration.seconds(5),
                healthy_threshold_count=2,
                unhealthy_threshold_count=2,
            ),
        )

    def _security_group(
        self, vpc: ec2.IVpc, hosts: ec2.ISecurityGroup, ports: list[int]
    ) -> ec2.SecurityGroup:
        group = ec2.SecurityGroup(
            self,
            "SecurityGroup",
            vpc=vpc,
            description=f"Clients of {self._settings.sending_domain}, to its mail hosts",
            allow_all_outbound=False,
        )
        sources: list[ec2.IPeer] = [
            *(ec2.Peer.ipv4(cidr) for cidr in self._clients.cidrs),
            *(ec2.Peer.security_group_id(name) for name in self._clients.security_groups),
        ]
        for port in ports:
            for source in sources:
                group.add_ingress_rule(source, ec2.Port.tcp(port), "Clients")
        hosts.connections.allow_from(
            group, ec2.Port.tcp(SUBMISSION_PORT), "Clients, through the load balancer"
        )
        hosts.connections.allow_from(
            group, ec2.Port.tcp(HEALTH_PORT), "Whether this host takes clients' mail"
        )
        return group

    def _password(self, name: str) -> str:
        """The ARN of the client's secret. Not the Secret construct, which alters the key's policy.

        Whoever may read the secret has to be allowed the key by his own policy, as the hosts are.
        """
        secret = secretsmanager.CfnSecret(
            self,
            f"Password-{name}",
            description=f"What {name} submits mail with at {self._settings.submission_name}",
            kms_key_id=self._encryption_key_arn,
            generate_secret_string=secretsmanager.CfnSecret.GenerateSecretStringProperty(
                secret_string_template=json.dumps({"username": name}),
                generate_string_key="password",
                password_length=PASSWORD_LENGTH,
                exclude_punctuation=True,
            ),
        )
        acknowledge(
            secret,
            "AwsSolutions-SMG4",
            "A password is replaced when its client can follow: the hosts take a new one within "
            "five minutes, and docs/clients.md says how to do it without a refusal.",
        )
        return secret.ref


def _networks(clients: Clients) -> tuple[str, ...]:
    """Where clients may come from as a host can see it.

    Of a security group it sees nothing, so there every private address: the load balancer's own
    security group decides.
    """
    if clients.security_groups:
        return tuple(map(str, (*RFC_1918, RFC_6598)))
    return clients.cidrs
