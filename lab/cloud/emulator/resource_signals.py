"""Signals that an Auto Scaling group of a stack waits for (SignalResource).

ministack 1.5.33 delivers signals to wait conditions only, and to no stack that is rolling an update
back; CloudFormation waits for an instance then too.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lab.cloud.emulator.stack_events import StackResource
from lab.cloud.emulator.upstream import (
    Handler,
    Parameters,
    Response,
    cloudformation_handlers,
    parameter,
    wrap,
)

_arrived = threading.Condition()
_waiting: dict[tuple[str, str], "Expectation"] = {}


class SignalError(ValueError):
    """Too few SUCCESS signals; the text is what the resource's FAILED event says on AWS."""


def install() -> None:
    wrap(cloudformation_handlers._ACTION_HANDLERS, "SignalResource", signal_resource)


@dataclass(kw_only=True)
class Expectation:
    """The signals one resource waits for, and those that came."""

    resource: StackResource
    status: str
    """The resource status that events about a signal carry: ``CREATE_IN_PROGRESS``, ..."""
    received: dict[str, str] = field(default_factory=dict)
    """UniqueId to ``SUCCESS`` or ``FAILURE``."""

    def wait(self, *, count: int, min_successful_percent: int, timeout_seconds: int) -> None:
        """Return once enough of ``count`` signals are SUCCESS; for worker threads only.

        Raises:
            SignalError: enough FAILURE signals came that the rest cannot make up for them, or
                the time is over. A signal that did not come counts as a FAILURE.
        """
        required = math.ceil(count * min_successful_percent / 100)
        deadline = time.monotonic() + timeout_seconds

        def decided() -> bool:
            return self._count("SUCCESS") >= required or self._count("FAILURE") > count - required

        with _arrived:
            while not decided() and (remaining := deadline - time.monotonic()) > 0:
                _arrived.wait(remaining)
        if self._count("SUCCESS") >= required:
            return
        received = f"{self._count('FAILURE')} FAILURE"
        if not decided():
            received = f"{self._count('SUCCESS')} SUCCESS"
            self.resource.event(
                "UPDATE_IN_PROGRESS",  # in a creation too, says AWS
                f"Failed to receive {count - len(self.received)} resource signal(s) for the "
                "current batch. Each resource signal timeout is counted as a FAILURE.",
            )
        raise SignalError(
            f"Received {received} signal(s) out of {count}. Unable to satisfy "
            f"{min_successful_percent}% MinSuccessfulInstancesPercent requirement"
        )

    def _count(self, status: str) -> int:
        return list(self.received.values()).count(status)


@contextmanager
def expect_signals(resource: StackResource, *, status: str) -> Iterator[Expectation]:
    """Take signals for the resource from now on, so that none is lost before the wait begins."""
    key = (resource.stack_id, resource.logical_id)
    expectation = Expectation(resource=resource, status=status)
    with _arrived:
        _waiting[key] = expectation
    try:
        yield expectation
    finally:
        with _arrived:
            del _waiting[key]


def signal_resource(original: Handler, parameters: Parameters) -> Response:
    """SignalResource for a waiting Auto Scaling group; any other goes to ministack."""
    stack = cloudformation_handlers._resolve_stack(parameter(parameters, "StackName")) or {}
    logical_id = parameter(parameters, "LogicalResourceId")
    unique_id = parameter(parameters, "UniqueId")
    status = parameter(parameters, "Status")
    with _arrived:
        expectation = _waiting.get((stack.get("StackId", ""), logical_id))
        # ministack answers what is not a valid signal, or one that nobody waits for.
        if not expectation or not 0 < len(unique_id) <= 64 or status not in ("SUCCESS", "FAILURE"):
            return original(parameters)
        if unique_id not in expectation.received:
            expectation.received[unique_id] = status
            expectation.resource.event(
                expectation.status, f"Received {status} signal with UniqueId {unique_id}"
            )
            _arrived.notify_all()
    answer: Response = cloudformation_handlers._xml(200, "SignalResourceResponse", "")
    return answer
