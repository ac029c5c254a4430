"""Who is told that a deployment waits for a person."""

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct


class ApprovalTopic(Construct):
    """topic: sends what the pipeline asks to a mailbox, by AWS's own mail and not by ours.

    Not an AlertTopic, which lets CloudWatch's alarms and nobody else in: here the pipeline's own
    roles publish, each by its own policy, and each gets the use of the key with it.
    """

    def __init__(self, scope: Construct, construct_id: str, *, address: str) -> None:
        super().__init__(scope, construct_id)
        key = kms.Key(
            self,
            "Key",
            description="Approval topic",
            enable_key_rotation=True,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        self.topic = sns.Topic(self, "Topic", master_key=key, enforce_ssl=True)
        self.topic.add_subscription(subscriptions.EmailSubscription(address))
