"""Reverse DNS of the sending addresses."""

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_route53 as route53
from constructs import Construct

from stacks.acknowledgement import acknowledge
from stacks.custom_resource_function import CustomResourceFunction
from stacks.sending_address import ENVIRONMENT_TAG, SendingAddress

# AWS names no upper limit for a PTR change; a function cannot run longer than this.
TIMEOUT = cdk.Duration.minutes(15)


class ReverseDns(Construct):
    """Makes every address's PTR record name the sending domain.

    addresses: by availability zone. a_record: the record that names them all; AWS refuses a PTR
    record whose name does not point back yet. log_group: where the function that does it logs.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        domain: str,
        environment: str,
        addresses: Mapping[str, SendingAddress],
        a_record: route53.ARecord,
        log_group: logs.ILogGroup,
    ) -> None:
        super().__init__(scope, construct_id)
        function = CustomResourceFunction(
            self,
            "Handler",
            module="reverse_dns",
            description="Sets the reverse DNS of Elastic IPs",
            timeout=TIMEOUT,
            log_group=log_group,
        )
        self._allow(function, environment, addresses)
        for zone, address in addresses.items():
            record = cdk.CustomResource(
                self,
                zone,
                resource_type="Custom::ReverseDns",
                service_token=function.service_token,
                # A function that dies without an answer should not hold the stack for an hour.
                service_timeout=TIMEOUT.plus(cdk.Duration.minutes(1)),
                properties={"AllocationId": address.allocation_id, "DomainName": domain},
                # The address's fate: CloudFormation asks to reset the record only when the address
                # itself is being given up, and never for one that is kept.
                removal_policy=address.removal_policy,
            )
            record.node.add_dependency(a_record)

    def _allow(
        self,
        function: CustomResourceFunction,
        environment: str,
        addresses: Mapping[str, SendingAddress],
    ) -> None:
        stack = cdk.Stack.of(self)
        function.role.add_to_policy(
            iam.PolicyStatement(
                sid="SetReverseDns",
                actions=["ec2:ModifyAddressAttribute"],
                resources=[
                    stack.format_arn(
                        service="ec2", resource="elastic-ip", resource_name=address.allocation_id
                    )
                    for address in addresses.values()
                ],
            )
        )
        # By tag and not by the list above: CloudFormation takes an address off that list before it
        # asks for its reverse DNS to be reset, when a zone is removed or its creation rolled back.
        every_address = stack.format_arn(service="ec2", resource="elastic-ip", resource_name="*")
        function.role.add_to_policy(
            iam.PolicyStatement(
                sid="GiveUpReverseDns",
                actions=["ec2:ResetAddressAttribute"],
                resources=[every_address],
                conditions={"StringEquals": {f"aws:ResourceTag/{ENVIRONMENT_TAG}": environment}},
            )
        )
        acknowledge(
            function.role,
            f"AwsSolutions-IAM5[Resource::arn:aws:ec2:{stack.region}:{stack.account}:elastic-ip/*]",
            "An address that is given up is in no list any more; the condition on its tag admits "
            "this environment's only.",
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
            "EC2's Describe actions are granted for all resources or none; this one only reads.",
        )
