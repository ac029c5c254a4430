"""A topic under a key of our own."""

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from constructs import Construct


def encrypted_topic(scope: Construct, *, description: str) -> tuple[kms.Key, sns.Topic]:
    """The key and the topic, `Key` and `Topic` in `scope`; `description` is the key's.

    Not AWS's own key of SNS, which CloudWatch may not use and nobody can be given the use of.
    """
    key = kms.Key(
        scope,
        "Key",
        description=description,
        enable_key_rotation=True,
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )
    return key, sns.Topic(scope, "Topic", master_key=key, enforce_ssl=True)
