"""A long queue: what it costs to look at, and how long it takes to drain."""

from __future__ import annotations

from dataclasses import dataclass

from lab.faults.trial import Trial
from lab.lab import Lab

_DRAIN_SECONDS = 1800.0

# The CPU seconds, user and system, of one queue run in the foreground, as the MTA's own user. To
# fill a long queue takes minutes, after which its first messages are due again; here none is.
_IDLE_RUN = """
import resource, subprocess
ages = ["-OMinQueueAge=2h", "-OMaxQueueAge=2h"]
subprocess.run(["/usr/sbin/sendmail-mta", *ages, "-qf"], check=True, user="smmta", group="smmsp")
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
    trial.wait_until_tried()
    idle = float(trial.run(f"python3 -c '{_IDLE_RUN}'"))
    lab.sinkhole("accept")
    trial.repaired()
    trial.flush()
    _, seconds = trial.settled()
    return Growth(messages=messages, idle_run_cpu_seconds=idle, drain_seconds=seconds)
