"""A long queue: what it costs to look at, and how long it takes to drain."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.faults.trial import Trial
from lab.lab import Lab

_DRAIN_SECONDS = 1800.0

# The CPU seconds, user and system, of one queue run in the foreground, as the MTA's own user.
_IDLE_RUN = """
import os, pwd, resource, subprocess
subprocess.run(["/usr/sbin/sendmail-mta", "-qf"], check=True, user="smmta", group="smmsp")
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime)
"""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What a queue of so many deferred messages costs."""

    messages: int
    idle_run_cpu_seconds: float
    drain_seconds: float

    @property
    def drained_per_second(self) -> float:
        return self.messages / self.drain_seconds


def measure(lab: Lab, *, messages: int) -> Growth:
    """Fill the queue while the receiver refuses connections, look at it, and let it drain.

    Raises:
        BrokenPromise: a message was lost.
        LabError: the queue could not be filled, or did not drain within half an hour.
    """
    lab.sinkhole("refuse-connections")
    trial = Trial(lab, messages=messages, seconds=0, patience=_DRAIN_SECONDS)
    with trial.stream():
        pass
    _wait_until_all_were_deferred(trial)
    idle = float(trial.run(f"python3 -c '{_IDLE_RUN}'"))
    lab.sinkhole("accept")
    trial.repaired()
    trial.flush()
    _, seconds = trial.settled()
    return Growth(messages=messages, idle_run_cpu_seconds=idle, drain_seconds=seconds)


def _wait_until_all_were_deferred(trial: Trial) -> None:
    """Queue runs take up what was not tried at once; N is the number of tries (qf file, V8)."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    untried = "grep -l ^N0 /var/spool/queue/mqueue/qf* 2>/dev/null | wc -l"
    while int(trial.run(f"{untried} || true")) and time.monotonic() < deadline:
        time.sleep(2)
