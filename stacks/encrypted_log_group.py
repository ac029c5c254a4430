"""A log group under a KMS key of its own."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct


class EncryptedLogGroup(Construct):
    """log_group: keeps its entries for `retention` and is deleted with its stack."""

    def __init__(
        self, scope: Construct, id: str, *, name: str, retention: logs.RetentionDays
    ) -> None:
        super().__init__(scope, id)
        stack = cdk.Stack.of(self)
        key = kms.Key(
            self,
            "Key",
            description=f"Log group {name}",
            enable_key_rotation=True,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        # The group's own ARN would be a circle; its name is known, so the pattern is exact all the same.
        arn = stack.format_arn(
            service="logs",
            resource="log-group",
            resource_name=name,
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        key.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal(f"logs.{stack.region}.amazonaws.com")],
                actions=[
                    "kms:Decrypt*",
                    "kms:Describe*",
                    "kms:Encrypt*",
                    "kms:GenerateDataKey*",
                    "kms:ReEncrypt*",
                ],
                resources=["*"],
                conditions={"ArnEquals": {"kms:EncryptionContext:aws:logs:arn": arn}},
            )
        )
        self.log_group = logs.LogGroup(
            self,
            "LogGroup",
            log_group_name=name,
            encryption_key=key,
            retention=retention,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
