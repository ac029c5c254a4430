"""One environment, ready to deploy."""

import aws_cdk as cdk
from constructs import Construct

from stacks.environment import Environment
from stacks.mail_hosts import MailHosts
from stacks.network import Network
from stacks.sending_identity import SendingIdentity


class PosternStage(cdk.Stage):
    """The environment's stacks, split by how long their contents live."""

    def __init__(self, scope: Construct, settings: Environment) -> None:
        super().__init__(scope, settings.name)
        prefix = f"postern-{settings.name}"
        identity = SendingIdentity(
            self, "SendingIdentity", settings=settings, stack_name=f"{prefix}-SendingIdentity"
        )
        network = Network(
            self,
            "Network",
            settings=settings,
            addresses=identity.addresses,
            stack_name=f"{prefix}-Network",
        )
        hosts = MailHosts(
            self,
            "MailHosts",
            settings=settings,
            vpc=network.vpc,
            private_subnets=network.private_subnets,
            dkim=identity.keys,
            stack_name=f"{prefix}-MailHosts",
        )
        # A host checks its key against DNS when it starts: everything else must be there by then.
        hosts.add_stack_dependency(identity)
        for key, value in settings.tags.items():
            cdk.Tags.of(self).add(key, value)
