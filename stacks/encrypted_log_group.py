"""A log group under a KMS key of its own."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct


class EncryptedLogGroup(Construct):
    """log_group: keeps its entries for `retention` and is deleted with its stack."""

    def __init__(
        self, scope: Construct, construct_id: str, *, name: str, retention: logs.RetentionDays
    ) -> None:
        super().__init__(scope, construct_id)
        stack = cdk.Stack.of(self)
        key = kms.Key(
            self,
            "Key",
            description=f"Log group {name}",
            enable_key_rotation=True,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="EncryptThisLogGroupOnly",
                principals=[iam.ServicePrincipal(f"logs.{stack.region}.amazonaws.com")],
                actions=[
                    "kms:Decrypt*",
                    "kms:Describe*",
                    "kms:Encrypt*",
                    "kms:GenerateDataKey*",
                    "kms:ReEncrypt*",
                ],
                resources=["*"],
                # Written out: the log group's own ARN would refer in a circle.
                conditions={
                    "ArnEquals": {
                        "kms:EncryptionContext:aws:logs:arn": stack.format_arn(
                            service="logs",
                            resource="log-group",
                            resource_name=name,
                            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
                        )
                    }
                },
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
