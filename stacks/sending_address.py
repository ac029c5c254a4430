"""The Elastic IP that a zone's mail leaves from."""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from stacks.environment import ElasticIp

# On each new address: whose it is, for the function that may give its reverse DNS up.
ENVIRONMENT_TAG = "postern:environment"


class SendingAddress(Construct):
    """A new Elastic IP, or the existing one that the environment names.

    allocation_id, address: tokens for a new address, plain strings for an existing one.
    exported_allocation_id: for another stack. While that has it, CloudFormation refuses an update
    of this one in which the address is no more.
    removal_policy: what becomes of the address, and of its reverse DNS, when it leaves the stack.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        environment: str,
        existing: ElasticIp | None,
        removal_policy: cdk.RemovalPolicy,
    ) -> None:
        super().__init__(scope, construct_id)
        if existing:
            self.allocation_id, self.address = existing.allocation_id, existing.address
            stack = cdk.Stack.of(self)
            self.exported_allocation_id = stack.export_value(
                existing.allocation_id, name=f"{stack.stack_name}:{construct_id}-AllocationId"
            )
            # It was there before the stack and stays as it is, whatever happens to the stack.
            self.removal_policy = cdk.RemovalPolicy.RETAIN
            return
        elastic_ip = ec2.CfnEIP(self, "ElasticIp", domain="vpc")
        elastic_ip.apply_removal_policy(removal_policy)
        cdk.Tags.of(elastic_ip).add("Name", name)
        cdk.Tags.of(elastic_ip).add(ENVIRONMENT_TAG, environment)
        self.allocation_id = elastic_ip.attr_allocation_id
        self.exported_allocation_id = self.allocation_id  # the CDK exports what it refers to
        self.address = elastic_ip.attr_public_ip
        self.removal_policy = removal_policy
