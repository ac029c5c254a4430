"""Requests as CloudFormation sends them, and errors as AWS answers them."""

from typing import Any

from botocore.exceptions import ClientError


def request(
    kind: str, properties: dict[str, str], *, physical_id: str | None = None, **more: object
) -> dict[str, Any]:
    """A request of that kind ("Create", "Update" or "Delete") for one resource."""
    event = {
        "RequestType": kind,
        "ResponseURL": "https://answers.example/presigned",
        "StackId": "arn:aws:cloudformation:us-east-1:111122223333:stack/postern-prod/1",
        "RequestId": "request-1",
        "LogicalResourceId": "Resource",
        "ResourceProperties": {"ServiceToken": "arn:aws:lambda:...", **properties},
        **more,
    }
    if physical_id is not None:
        event["PhysicalResourceId"] = physical_id
    return event


def aws_error(code: str, message: str, operation: str) -> ClientError:
    """What boto3 raises when AWS refuses."""
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)
