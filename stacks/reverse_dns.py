"""Reverse DNS of the sending addresses."""

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.acknowledgement import acknowledge
from stacks.custom_resource_function import CustomResourceFunction
from stacks.sending_address import SendingAddress

# AWS names no upper limit for a PTR change; a function cannot run longer than this.
TIMEOUT = cdk.Duration.minutes(15)


class ReverseDns(Construct):
    """Makes every address's PTR record name the sending domain.

    addresses: by availability zone. AWS refuses a name whose A record does not yet point back, so add a
    dependency on the A record.
    """

    def __init__(
        self, scope: Construct, id: str, *, domain: str, addresses: Mapping[str, SendingAddress]
    ) -> None:
        super().__init__(scope, id)
        function = CustomResourceFunction(
            self,
            "Handler",
            module="reverse_dns",
            description="Sets the reverse DNS of Elastic IPs",
            timeout=TIMEOUT,
        )
        arns = [
            cdk.Stack.of(self).format_arn(
                service="ec2", resource="elastic-ip", resource_name=address.allocation_id
            )
            for address in addresses.values()
        ]
        function.role.add_to_policy(
            iam.PolicyStatement(
                sid="SetReverseDns",
                actions=["ec2:ModifyAddressAttribute", "ec2:ResetAddressAttribute"],
                resources=arns,
            )
        )
        function.role.add_to_policy(
            iam.PolicyStatement(
                sid="WatchReverseDns",
                actions=["ec2:DescribeAddressesAttribute"],
                resources=["*"],
            )
        )
        acknowledge(
            function.role,
            "AwsSolutions-IAM5[Resource::*]",
            "EC2's Describe actions know no narrower resource; it only reads.",
        )
        for zone, address in addresses.items():
            cdk.CustomResource(
                self,
                zone,
                resource_type="Custom::ReverseDns",
                service_token=function.service_token,
                # A function that dies without an answer should not hold the stack for an hour.
                service_timeout=TIMEOUT.plus(cdk.Duration.minutes(1)),
                properties={"AllocationId": address.allocation_id, "DomainName": domain},
                # The same fate as the address: CloudFormation asks to reset the record only when the
                # address itself is being given up, and never for one that is kept.
                removal_policy=address.removal_policy,
            )
