"""Custom::ReverseDns: the PTR record of an Elastic IP, for which CloudFormation has no type.

Properties: AllocationId, DomainName. The domain's A record must already name the address.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Elastic_Addressing_Reverse_DNS.html
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

import boto3
from botocore.exceptions import ClientError

from . import cloudformation
from .cloudformation import Event, Refused, Resource

POLL_SECONDS = 5
# Kept for the answer to CloudFormation.
RESERVE_SECONDS = 30
ATTRIBUTE = "domain-name"


class Ec2(Protocol):
    def modify_address_attribute(self, **request: str) -> object: ...

    def reset_address_attribute(self, **request: str) -> object: ...

    def describe_addresses_attribute(self, **request: object) -> dict[str, Any]: ...


class Context(Protocol):
    def get_remaining_time_in_millis(self) -> int: ...


def handler(event: Event, context: Context) -> None:
    """What Lambda calls."""
    ec2 = boto3.client("ec2")
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVE_SECONDS

    def wait() -> bool:
        if time.monotonic() + POLL_SECONDS > deadline:
            return False
        time.sleep(POLL_SECONDS)
        return True

    cloudformation.answer(event, lambda request: serve(request, ec2=ec2, wait=wait))


def serve(event: Event, *, ec2: Ec2, wait: Callable[[], bool]) -> Resource:
    """Set the PTR record and wait for it, or on Delete give it up.

    `wait` pauses between two looks and returns False, at once, when there is no time left.
    """
    properties = event["ResourceProperties"]
    allocation_id, domain = properties["AllocationId"], properties["DomainName"]
    if event["RequestType"] == "Delete":
        _reset(ec2, allocation_id, domain, wait)
    else:
        _set(ec2, allocation_id, domain, wait)
    return Resource(physical_id=allocation_id)


def _set(ec2: Ec2, allocation_id: str, domain: str, wait: Callable[[], bool]) -> None:
    address = _describe(ec2, allocation_id)
    if _name(address) == domain and "PtrRecordUpdate" not in address:
        return
    ec2.modify_address_attribute(AllocationId=allocation_id, DomainName=domain)
    while True:
        address = _describe(ec2, allocation_id)
        update = address.get("PtrRecordUpdate", {})
        status = update.get("Status")
        if status not in (None, "PENDING"):
            raise Refused(
                f"AWS did not set the reverse DNS of {allocation_id} to {domain}: {status}: "
                f"{update.get('Reason', 'no reason given')}. Check that the A record of {domain} "
                f"is seen from the Internet and names {address.get('PublicIp')}; then deploy again."
            )
        if status is None and _name(address) == domain:
            return
        if not wait():
            raise Refused(
                f"AWS has not finished setting the reverse DNS of {allocation_id} to {domain}. "
                "Watch `aws ec2 describe-addresses-attribute --attribute domain-name`, and deploy "
                "again when it is no longer PENDING."
            )


def _reset(ec2: Ec2, allocation_id: str, domain: str, wait: Callable[[], bool]) -> None:
    """An address with a PTR record cannot be released, so wait until the record is gone."""
    try:
        address = _describe(ec2, allocation_id)
        update = address.get("PtrRecordUpdate", {})
        if domain not in (_name(address), _without_dot(update.get("Value"))):
            return  # none, or one that somebody else has set since
        ec2.reset_address_attribute(AllocationId=allocation_id, Attribute=ATTRIBUTE)
        while True:
            address = _describe(ec2, allocation_id)
            if not _name(address) and "PtrRecordUpdate" not in address:
                return
            if not wait():
                raise Refused(
                    f"AWS has not finished removing the reverse DNS of {allocation_id}, and an "
                    "address that has one cannot be released. Delete the stack again later."
                )
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidAllocationID.NotFound":
            raise


def _describe(ec2: Ec2, allocation_id: str) -> dict[str, Any]:
    """The address's attributes; empty when it has no PTR record and no change is under way."""
    answer = ec2.describe_addresses_attribute(AllocationIds=[allocation_id], Attribute=ATTRIBUTE)
    return next(iter(answer["Addresses"]), {})


def _name(address: dict[str, Any]) -> str | None:
    return _without_dot(address.get("PtrRecord"))


def _without_dot(name: str | None) -> str | None:
    return name.rstrip(".") if name else None
