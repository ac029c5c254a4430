"""Who is told about alarms."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from stacks.encrypted_topic import encrypted_topic


class AlertTopic(Construct):
    """topic: sends what CloudWatch's alarms say to a mailbox, by AWS's own mail and not by ours.

    alarm_names: the alarms that may use it; * stands for any text.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, address: str, alarm_names: str
    ) -> None:
        super().__init__(scope, construct_id)
        key, self.topic = encrypted_topic(self, description="Alert topic")
        stack = cdk.Stack.of(self)
        alarms = stack.format_arn(
            service="cloudwatch",
            resource="alarm",
            resource_name=alarm_names,
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        only_for_these_alarms = {
            "StringEquals": {"aws:SourceAccount": stack.account},
            "ArnLike": {"aws:SourceArn": alarms},
        }
        cloudwatch = iam.ServicePrincipal("cloudwatch.amazonaws.com")
        # https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html#compatibility-with-aws-services
        key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="EncryptTheseAlarmsOnly",
                principals=[cloudwatch],
                actions=["kms:Decrypt", "kms:GenerateDataKey*"],
                resources=["*"],
                conditions=only_for_these_alarms,
            )
        )
        self.topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="PublishTheseAlarmsOnly",
                principals=[cloudwatch],
                actions=["sns:Publish"],
                resources=[self.topic.topic_arn],
                conditions=only_for_these_alarms,
            )
        )
        self.topic.add_subscription(subscriptions.EmailSubscription(address))
