"""A long queue of deferred messages: what it costs to have, and how long it takes to drain."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench.host import Identity, MailHost
from bench.measure import Application, wait_for
from bench.receiver import Receiver
from bench.workloads import Workload
from lab.control import LabError

_IN_THE_QUEUE_SECONDS = 30.0
_IDLE_SECONDS = 30.0
_QUIET_SECONDS = 3.0
_QUIET_CPU = 0.1
"""CPU seconds in `_QUIET_SECONDS` below which a host has done what it had to."""
_SETTLE_SECONDS = 240.0


@dataclass(frozen=True, kw_only=True)
class QueueSample:
    """What one contender's queue of so many deferred messages showed; times in seconds."""

    contender: str
    messages: int
    idle_cpu: Mapping[str, float]
    """CPU seconds in 30 s while every receiver refuses connections: mta, signer, rest."""
    delivered: int
    """How many messages came, in all, until the queue was empty or nothing came any more."""
    doubled: int
    drain_seconds: float
    """From the flush, once receivers were back, to the last message."""

    @property
    def drained(self) -> bool:
        return self.delivered == self.messages

    @property
    def per_second(self) -> float:
        return self.delivered / self.drain_seconds if self.drain_seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "per_second": self.per_second}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> QueueSample:
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})


def queue(host: MailHost, receiver: Receiver, identity: Identity, *, messages: int) -> QueueSample:
    """Fill the queue while every receiver refuses connections, look at it, let it drain.

    Raises:
        LabError: the queue could not be filled.
    """
    run = uuid.uuid4().hex[:8]
    workload = Workload(
        name="queue", messages=messages, kib=10, domains=200, delay=0, per_connection=50
    )
    receiver.begin(run=run, expected=messages)
    receiver.close()
    try:
        with Application(host, workload, run=run, identity=identity) as application:
            application.begin()
            account = application.finish()
        deadline = time.monotonic() + _IN_THE_QUEUE_SECONDS
        while (queued := host.queued()) != messages:
            if time.monotonic() < deadline:
                time.sleep(0.5)
                continue
            raise LabError(
                f"{host.contender.name} has {queued} of {messages} messages in its queue, after it "
                f"accepted {account['accepted']}."
            )
        _settle(host)
        before = host.cpu_seconds()
        time.sleep(_IDLE_SECONDS)
        after = host.cpu_seconds()
    finally:
        receiver.open()
    begun = time.monotonic()
    host.flush()
    # What is just being tried is left out of a flush, so who sees nothing come does it again.
    wait_for(receiver, messages, stalled=host.flush)
    emptied = host.wait_until_empty(seconds=30)
    counted = receiver.report()
    if not emptied:
        host.clear()
    return QueueSample(
        contender=host.contender.name,
        messages=messages,
        idle_cpu={who: after[who] - before[who] for who in after},
        delivered=counted["distinct"] - counted["outside"],
        doubled=counted["doubled"],
        drain_seconds=max(0.0, counted["last"] - begun),
    )


def _settle(host: MailHost) -> None:
    """Return when each message was tried and the host does no more than now and then."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while host.untried() and time.monotonic() < deadline:
        time.sleep(_QUIET_SECONDS)
    while time.monotonic() < deadline:
        before = sum(host.cpu_seconds().values())
        time.sleep(_QUIET_SECONDS)
        if sum(host.cpu_seconds().values()) - before < _QUIET_CPU:
            return
