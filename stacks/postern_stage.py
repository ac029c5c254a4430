"""One environment, ready to deploy."""

import aws_cdk as cdk
from constructs import Construct

from stacks.doctor_access import DoctorAccess
from stacks.environment import Environment
from stacks.mail_hosts import MailHosts
from stacks.monitoring import Monitoring
from stacks.network import Network
from stacks.sending_identity import SendingIdentity


class PosternStage(cdk.Stage):
    """The environment's stacks, split by how long their contents live.

    CloudFormation calls them postern-<environment>-<stack>. An environment that a pipeline delivers
    lets the pipeline's gate, `gate_role_arn`, look at it; nothing else depends on that.
    """

    def __init__(
        self, scope: Construct, settings: Environment, *, gate_role_arn: str | None = None
    ) -> None:
        super().__init__(
            scope,
            settings.name,
            stage_name=f"postern-{settings.name}",
            env=cdk.Environment(account=settings.account, region=settings.region),
        )
        identity = SendingIdentity(self, "SendingIdentity", settings=settings)
        network = Network(self, "Network", settings=settings, addresses=identity.addresses)
        hosts = MailHosts(
            self,
            "MailHosts",
            settings=settings,
            vpc=network.vpc,
            private_subnets=network.private_subnets,
            dkim=identity.dkim,
        )
        # A starting host compares its key with DNS and reaches AWS through the NAT gateway.
        hosts.add_stack_dependency(identity)
        hosts.add_stack_dependency(network)
        monitoring = Monitoring(
            self,
            "Monitoring",
            settings=settings,
            mail_log_name=hosts.mail_log_name,
            nat_gateway_ids=network.nat_gateway_ids,
            submission=hosts.submission,
        )
        # Its references are names and outputs, which have to be there.
        monitoring.add_stack_dependency(network)
        monitoring.add_stack_dependency(hosts)
        if settings.delivery and gate_role_arn:
            DoctorAccess(self, "DoctorAccess", settings=settings, gate_role_arn=gate_role_arn)
        for key, value in settings.tags.items():
            cdk.Tags.of(self).add(key, value)
