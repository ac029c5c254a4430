"""CloudFormation's protocol for custom resources: one request in, exactly one answer out.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref.html
"""

import json
import time
import traceback
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

Event = Mapping[str, Any]

# CloudFormation takes 4,096 bytes for the whole answer; the reason must leave room for the ids.
LONGEST_REASON = 1000
ANSWER_TIMEOUT_SECONDS = 20
# A permission that this deployment has just granted is not known everywhere in AWS at once.
NOT_PERMITTED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
PERMISSION_PAUSES_SECONDS = (1, 2, 4, 8, 16)


class Refused(Exception):
    """The request cannot be fulfilled; the text is shown in the stack event and says what to do."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """What a handler made: `data` holds the attributes that a template reads with Fn::GetAtt."""

    physical_id: str
    data: dict[str, str] = field(default_factory=dict)


def answer(event: Event, work: Callable[[Event], Resource]) -> None:
    """Do the work and tell CloudFormation how it went, whatever happens.

    Without an answer a stack waits for the resource's timeout. Neither the request (its ResponseURL
    is a credential) nor an unforeseen exception's text (it may quote what was being stored) is
    logged.
    """
    answer_to = {key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")}
    try:
        resource = _once_permitted(event, work)
        body = {
            "Status": "SUCCESS",
            "PhysicalResourceId": resource.physical_id,
            "Data": resource.data,
        }
    except Exception as error:
        reason = _reason(error)
        print(f"{event['RequestType']} {event['LogicalResourceId']}: {reason}")
        body = {
            "Status": "FAILED",
            "Reason": reason[:LONGEST_REASON],
            # CloudFormation rolls back with a Delete of this id, which must name the same resource.
            "PhysicalResourceId": event.get("PhysicalResourceId", "not-created"),
        }
    request = urllib.request.Request(  # noqa: S310, CloudFormation's own https address
        event["ResponseURL"],
        data=json.dumps({**answer_to, **body}).encode(),
        headers={"Content-Type": ""},  # the address is signed for an empty type
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_SECONDS):  # noqa: S310
        pass


def _once_permitted(event: Event, work: Callable[[Event], Resource]) -> Resource:
    for pause in PERMISSION_PAUSES_SECONDS:
        try:
            return work(event)
        except ClientError as error:
            if error.response["Error"]["Code"] not in NOT_PERMITTED:
                raise
        time.sleep(pause)
    return work(event)


def _reason(error: Exception) -> str:
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, ClientError):
        # The service's own words; they name identifiers, never the values that were sent.
        fault = error.response.get("Error", {})
        return f"{error.operation_name}: {fault.get('Code')}: {fault.get('Message')}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{where.name}, line {where.lineno} of {where.filename}"
    return f"unforeseen {type(error).__name__} in {place}"
