"""What is measured: the streams of mail, and the long queues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KIB = 1024
SLOW_HOLD = 0.2
"""With round trips of 200 ms: a message on a connection of its own takes a second in all."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A stream of messages, submitted as fast as the host takes them."""

    name: str
    messages: int
    kib: int
    """Size of each message in KiB, headers included."""
    domains: int
    """Recipient domains; 1 is the big one."""
    delay: float
    """Round trip to the receivers in seconds."""
    hold: float = 0.0
    """How long receivers think about a whole message, in seconds."""
    per_connection: int = 1
    """Messages that the application sends over a connection."""
    submission: Literal["smtp", "sendmail"] = "smtp"
    sessions: int = 20

    @property
    def octets(self) -> int:
        return self.kib * KIB

    @property
    def title(self) -> str:
        if self.messages == 1:
            return f"a single mail of {self.kib} KB on an idle host"
        delay = f"{self.delay * 1000:.0f} ms"
        if self.hold:
            delay += f" and {self.hold * 1000:.0f} ms more for a message"
        to = "one big domain" if self.domains == 1 else f"{self.domains} domains"
        by = {"smtp": f"SMTP, {self.per_connection} a connection", "sendmail": "sendmail -t"}
        return f"{self.kib} KB to {to}, {delay}, {by[self.submission]}"


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(name="many-0ms", messages=3000, kib=10, domains=200, delay=0),
        Workload(name="many-50ms", messages=3000, kib=10, domains=200, delay=0.05),
        Workload(name="many-200ms", messages=3000, kib=10, domains=200, delay=0.2, hold=SLOW_HOLD),
        Workload(
            name="reused-50ms", messages=3000, kib=10, domains=200, delay=0.05, per_connection=50
        ),
        Workload(name="big-50ms", messages=3000, kib=10, domains=1, delay=0.05),
        Workload(name="50kb-50ms", messages=1000, kib=50, domains=200, delay=0.05),
        Workload(
            name="sendmail-50ms",
            messages=3000,
            kib=10,
            domains=200,
            delay=0.05,
            submission="sendmail",
        ),
        Workload(name="single", messages=1, kib=10, domains=200, delay=0, sessions=1),
    )
}
QUEUES = (1000, 5000, 20000)
"""Lengths of the queues of deferred messages."""
