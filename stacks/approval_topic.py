"""Who is told that a deployment waits for a person."""

from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from stacks.encrypted_topic import encrypted_topic


class ApprovalTopic(Construct):
    """topic: sends what the pipeline asks to a mailbox, by AWS's own mail and not by ours.

    Not an AlertTopic, which lets CloudWatch's alarms and nobody else in: here the pipeline's own
    roles publish, each by its own policy, and each gets the use of the key with it.
    """

    def __init__(self, scope: Construct, construct_id: str, *, address: str) -> None:
        super().__init__(scope, construct_id)
        _key, self.topic = encrypted_topic(self, description="Approval topic")
        self.topic.add_subscription(subscriptions.EmailSubscription(address))
