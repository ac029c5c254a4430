"""A deployment's stack events, in the words of a person who waits for it."""

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError

POLL_SECONDS = 0.5

_DONE = {
    "CREATE_COMPLETE": "created",
    "UPDATE_COMPLETE": "updated",
    "DELETE_COMPLETE": "deleted",
    "DELETE_SKIPPED": "kept",
    "ROLLBACK_COMPLETE": "rolled back",
    "UPDATE_ROLLBACK_COMPLETE": "rolled back to what it was",
}
# What CDK appends to a logical id.
_HASH_OF_A_PATH = re.compile(r"[0-9A-F]{8}$")
# Follows from another failure and explains nothing.
_CONSEQUENCES = ("Resource creation cancelled", "Resource update cancelled")


@dataclass(frozen=True, kw_only=True)
class StackEvent:
    """One event as DescribeStackEvents answers it; ``physical_id`` and ``reason`` may be empty."""

    event_id: str
    time: datetime
    stack: str
    logical_id: str
    physical_id: str
    resource_type: str
    status: str
    reason: str

    @property
    def is_about_the_stack(self) -> bool:
        return self.resource_type == "AWS::CloudFormation::Stack"

    @property
    def is_failure(self) -> bool:
        """Says why an operation did not succeed."""
        return (
            self.status.endswith("_FAILED") or "FAILURE signal" in self.reason
        ) and not self.reason.startswith(_CONSEQUENCES)

    @property
    def is_worth_telling(self) -> bool:
        """Whether a person learns something: of single resources what ends, fails or has a reason.

        ministack 1.5.33 says UPDATE_COMPLETE of resources that an update leaves alone too; AWS does
        not. So that of a single resource is left out.
        """
        if "_CLEANUP_" in self.status:
            return False
        if self.is_about_the_stack or self.reason:
            return True
        return "_IN_PROGRESS" not in self.status and self.status != "UPDATE_COMPLETE"

    def __str__(self) -> str:
        """``MailHosts: MailHostUsEast1A created``, with a reason where there is one."""
        stack = self.stack.rpartition("-")[2]
        name = _HASH_OF_A_PATH.sub("", self.logical_id)
        subject = stack if self.is_about_the_stack else f"{stack}: {name}"
        if self.reason and self.status.endswith("_IN_PROGRESS") and not self.is_about_the_stack:
            return f"{subject}: {self.reason}"
        outcome = _DONE.get(self.status) or self.status.lower().replace("_", " ")
        return f"{subject} {outcome}: {self.reason}" if self.reason else f"{subject} {outcome}"


class EventReader:
    """Reads the events of every stack whose name starts with ``prefix``, each event once."""

    def __init__(self, cloudformation: Any, *, prefix: str) -> None:
        self._cloudformation = cloudformation
        self._prefix = prefix
        self._seen = {event.event_id for event in self._all()}

    def new_events(self) -> list[StackEvent]:
        """Those since the last call, or since the reader was made, oldest first."""
        events = [event for event in self._all() if event.event_id not in self._seen]
        self._seen.update(event.event_id for event in events)
        return events

    def _all(self) -> list[StackEvent]:
        pages = self._cloudformation.get_paginator("list_stacks").paginate()
        stacks = [
            stack["StackId"]
            for page in pages
            for stack in page["StackSummaries"]
            if stack["StackName"].startswith(self._prefix)
        ]
        events = [event for stack in stacks for event in stack_events(self._cloudformation, stack)]
        return sorted(events, key=lambda event: event.time)


def stack_events(cloudformation: Any, stack: str) -> list[StackEvent]:
    """Every event of a stack, oldest first. ``stack`` is a name or, for a deleted one, its id."""
    pages = cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack)
    newest_first = [event for page in pages for event in page["StackEvents"]]
    return [_event(event) for event in reversed(newest_first)]


def _event(event: dict[str, Any]) -> StackEvent:
    return StackEvent(
        event_id=event["EventId"],
        time=event["Timestamp"],
        stack=event["StackName"],
        logical_id=event["LogicalResourceId"],
        physical_id=event.get("PhysicalResourceId", ""),
        resource_type=event["ResourceType"],
        status=event["ResourceStatus"],
        reason=event.get("ResourceStatusReason", ""),
    )


@contextmanager
def followed(reader: EventReader, tell: Callable[[StackEvent], None]) -> Iterator[None]:
    """Tell every new event from a thread of its own while the context lasts."""
    ended = threading.Event()

    def follow() -> None:
        with suppress(BotoCoreError):  # raised again below, where somebody hears it
            while not ended.wait(POLL_SECONDS):
                _tell(reader.new_events(), tell)

    thread = threading.Thread(target=follow, name="stack events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _tell(reader.new_events(), tell)


def _tell(events: Iterable[StackEvent], tell: Callable[[StackEvent], None]) -> None:
    for event in events:
        tell(event)
