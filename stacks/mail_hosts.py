"""The mail hosts: replaced at will; only their queue volumes are kept."""

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.dkim_keys import DkimKeys
from stacks.encrypted_log_group import EncryptedLogGroup
from stacks.environment import Environment
from stacks.mail_cell import MailCell
from stacks.submission import Submission

# DNS needs no rule: security groups do not filter the VPC's own resolver.
OUTBOUND_PORTS = {
    25: "SMTP to receivers",
    80: "Debian packages, which are signed",
    443: "AWS APIs and agents",
}


class MailHosts(cdk.Stack):
    """A cell in each availability zone, and the log group that all of them write to.

    submission: how other hosts submit mail, where the environment names any.
    mail_log_name: that log group's name; not a reference, so that another stack can read the log
    without holding this one.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Environment,
        vpc: ec2.IVpc,
        private_subnets: Mapping[str, ec2.ISubnet],
        dkim: DkimKeys,
    ) -> None:
        super().__init__(
            scope, construct_id, description=f"Mail hosts of {settings.sending_domain}"
        )
        self.mail_log_name = f"/postern/{settings.name}/mail"
        mail_log = EncryptedLogGroup(
            self,
            "MailLog",
            name=self.mail_log_name,
            # Long enough to answer a complaint, and no longer: the log names recipients.
            retention=logs.RetentionDays.THREE_MONTHS,
        ).log_group
        security_group = ec2.SecurityGroup(
            self,
            "SecurityGroup",
            vpc=vpc,
            description=f"Mail hosts of {settings.sending_domain}: "
            + ("clients, by the load balancer" if settings.clients else "nothing comes in"),
            allow_all_outbound=False,
        )
        for port, purpose in OUTBOUND_PORTS.items():
            security_group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(port), purpose)
        self.submission = (
            Submission(
                self,
                "Submission",
                settings=settings,
                clients=settings.clients,
                vpc=vpc,
                private_subnets=private_subnets,
                host_security_group=security_group,
                encryption_key=dkim.encryption_key,
            )
            if settings.clients
            else None
        )
        # CloudFormation looks it up at each deployment: a new Debian image replaces the host.
        image = ec2.MachineImage.from_ssm_parameter(
            f"/aws/service/debian/release/13/latest/{settings.host.architecture}",
            os=ec2.OperatingSystemType.LINUX,
        )
        cells: list[MailCell] = []
        for zone, subnet in private_subnets.items():
            cell = MailCell(
                self,
                zone,
                settings=settings,
                zone=zone,
                vpc=vpc,
                subnet=subnet,
                security_group=security_group,
                image=image,
                dkim_secret_arn=dkim.by_selector[settings.dkim.signing].secret_arn,
                dkim_encryption_key=dkim.encryption_key,
                log_group=mail_log,
                submission=self.submission,
            )
            # One at a time: while a host is replaced the others send, and a set-up that fails stops
            # the deployment at the first.
            if cells:
                cell.group.node.add_dependency(cells[-1].group)
            cells.append(cell)
        cdk.CfnOutput(
            self,
            "MailLogGroup",
            value=mail_log.log_group_name,
            description="The mail log of every host",
        )
        cdk.CfnOutput(
            self,
            "SigningSelector",
            value=settings.dkim.signing,
            description="The DKIM selector that every host signs with",
        )
        if self.submission:
            self._tell_clients(settings.submission_name, self.submission)

    def _tell_clients(self, name: str, submission: Submission) -> None:
        outputs = {
            "SubmissionName": (name, "Where clients submit, and what its certificate names"),
            "SubmissionLoadBalancer": (
                submission.load_balancer_name,
                "What that name leads to",
            ),
            "SubmissionSecrets": (
                ", ".join(f"{client}: {arn}" for client, arn in submission.secret_arns.items()),
                "Where each client's user name and password are",
            ),
        }
        for output_id, (value, description) in outputs.items():
            cdk.CfnOutput(self, output_id, value=value, description=description)
