"""Custom::ReverseDns: the PTR record of an Elastic IP, for which CloudFormation has no type.

Properties: AllocationId, DomainName. The domain's A record must already name the address.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Elastic_Addressing_Reverse_DNS.html
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import boto3
from botocore.exceptions import ClientError

from . import cloudformation
from .cloudformation import Event, Refused, Resource

# A change takes seconds or minutes: look soon, then less and less often.
FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS = 1.0, 15.0
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

    pause = FIRST_POLL_SECONDS

    def wait() -> bool:
        nonlocal pause
        if time.monotonic() + pause > deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_POLL_SECONDS)
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


@dataclass(frozen=True, kw_only=True)
class _ReverseDns:
    """What an address's PTR record names (None: nothing), and the last change of it, if any."""

    name: str | None
    wanted: str | None
    status: str | None
    reason: str | None


def _set(ec2: Ec2, allocation_id: str, domain: str, wait: Callable[[], bool]) -> None:
    state = _look(ec2, allocation_id)
    if state.name == domain and state.status != "PENDING":
        return
    if (state.wanted, state.status) != (domain, "PENDING"):
        ec2.modify_address_attribute(AllocationId=allocation_id, DomainName=domain)
    failure = ""
    while True:
        state = _look(ec2, allocation_id)
        if state.name == domain and state.status != "PENDING":
            return
        if state.status not in (None, "PENDING"):
            failure = f"{state.status}: {state.reason}"
        if not wait():
            break
        if state.status not in (None, "PENDING"):
            # The resolver that AWS asked may remember the A record as it was before.
            ec2.modify_address_attribute(AllocationId=allocation_id, DomainName=domain)
    if failure:
        raise Refused(
            f"AWS did not set the reverse DNS of {allocation_id} to {domain}: {failure}. Check "
            f"that the A record of {domain} is seen from the Internet and names this address; "
            "then deploy again."
        )
    raise Refused(
        f"AWS has not finished setting the reverse DNS of {allocation_id} to {domain}. Watch "
        "`aws ec2 describe-addresses-attribute --attribute domain-name`, and deploy again when it "
        "is no longer PENDING."
    )


def _reset(ec2: Ec2, allocation_id: str, domain: str, wait: Callable[[], bool]) -> None:
    """An address with a PTR record cannot be released, so wait until the record is gone."""
    try:
        state = _look(ec2, allocation_id)
        if domain not in (state.name, state.wanted):
            return  # none, or one that somebody else has set since
        ec2.reset_address_attribute(AllocationId=allocation_id, Attribute=ATTRIBUTE)
        while True:
            state = _look(ec2, allocation_id)
            if state.name is None and state.status != "PENDING":
                return
            if not wait():
                raise Refused(
                    f"AWS has not finished removing the reverse DNS of {allocation_id}, and an "
                    "address that has one cannot be released. Delete the stack again later."
                )
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidAllocationID.NotFound":
            raise


def _look(ec2: Ec2, allocation_id: str) -> _ReverseDns:
    answer = ec2.describe_addresses_attribute(AllocationIds=[allocation_id], Attribute=ATTRIBUTE)
    # An address without a PTR record, and without a change of it, may be left out.
    address: dict[str, Any] = next(iter(answer["Addresses"]), {})
    update = address.get("PtrRecordUpdate", {})
    return _ReverseDns(
        name=_without_dot(address.get("PtrRecord")),
        wanted=_without_dot(update.get("Value")),
        status=update.get("Status"),
        reason=update.get("Reason"),
    )


def _without_dot(name: str | None) -> str | None:
    return name.rstrip(".") or None if name else None
