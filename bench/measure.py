"""One measurement of one contender: a stream of mail from the application to the sink."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import cpu
from bench.host import PROGRAMS, Identity, MailHost
from bench.receiver import Receiver
from bench.signatures import unverified
from bench.source import Settings
from bench.workloads import Workload
from lab.control import LabError
from lab.network.namespace import command_in
from lab.network.network import host_namespace

_SAMPLED = 20
"""How many messages of a stream have their signatures verified."""
_STALLED = 45.0
"""Seconds without a new message after which a stream counts as stalled."""
_EMPTY_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one stream showed. Times are seconds, CPU times CPU seconds of the whole stream."""

    contender: str
    messages: int
    accepted: int
    delivered: int
    """Distinct messages of this stream at the sink."""
    doubled: int
    strangers: int
    """Messages that were none of this stream, bounces for one."""
    verified: int
    """Messages of the sample whose signature was right."""
    unverified: int
    seconds: float
    """From the first connection of the application to the last message at the sink."""
    accepted_seconds: float
    connections: int
    """Connections to the sink."""
    refusals: int
    """How often the application was told to try again."""
    unanswered: int
    cpu: Mapping[str, float]
    """CPU seconds by who used them: mta, signer, rest (of the host), source, sink, machine."""

    @property
    def exact(self) -> bool:
        """Whether every message arrived once, and the sample's signatures were right."""
        return (
            self.delivered == self.messages
            and not self.doubled
            and not self.strangers
            and not self.unverified
            and self.verified > 0
        )

    @property
    def per_second(self) -> float:
        """Delivered messages per second."""
        return self.delivered / self.seconds if self.seconds > 0 else 0.0

    def cpu_per_message(self, who: str) -> float:
        """CPU milliseconds per delivered message."""
        return 1000 * self.cpu.get(who, 0.0) / self.delivered if self.delivered else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "per_second": self.per_second, "exact": self.exact}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sample:
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})


def stream(host: MailHost, receiver: Receiver, workload: Workload, identity: Identity) -> Sample:
    """Send the workload's messages through `host`, and count what arrives.

    Raises:
        LabError: the application could not be started, or said nothing sensible.
    """
    run = uuid.uuid4().hex[:8]
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder)
        receiver.begin(
            run=run,
            expected=workload.messages,
            delay=workload.delay,
            hold=workload.hold,
            sample=kept,
            sample_every=max(1, workload.messages // _SAMPLED),
        )
        before, sink_before = host.cpu_seconds(), receiver.report()["cpu"]
        with Application(host, workload, run=run, identity=identity) as application:
            machine = cpu.Machine.now()
            application.begin()
            wait_for(receiver, workload.messages)
            machine_busy = cpu.Machine.now().busy - machine.busy
            account = application.finish()
            emptied = host.wait_until_empty(seconds=_EMPTY_SECONDS)
            mta_cpu = application.mta_cpu(account)
        counted = receiver.report()
        after = host.cpu_seconds()
        wrong = unverified(kept.iterdir(), identity)
        sampled = len(list(kept.iterdir()))
    if not emptied:  # the next stream begins with an empty queue
        host.clear()
    used = {who: after[who] - before[who] for who in after}
    return Sample(
        contender=host.contender.name,
        messages=workload.messages,
        accepted=account["accepted"],
        delivered=counted["distinct"] - counted["outside"],
        doubled=counted["doubled"],
        strangers=counted["strangers"] + counted["outside"],
        verified=sampled - len(wrong),
        unverified=len(wrong),
        seconds=counted["last"] - account["begin"],
        accepted_seconds=account["end"] - account["begin"],
        connections=counted["connections"],
        refusals=sum(account["refused"].values()),
        unanswered=account["unanswered"],
        cpu={
            **used,
            "mta": used["mta"] + mta_cpu,
            "source": account["cpu"],
            "sink": counted["cpu"] - sink_before,
            "machine": machine_busy,
        },
    )


class Application:
    """The program that sends, beside the host or, for `sendmail -t`, on it."""

    def __init__(self, host: MailHost, workload: Workload, *, run: str, identity: Identity) -> None:
        self._exits = ExitStack()
        settings = Settings(
            run=run,
            messages=workload.messages,
            octets=workload.octets,
            domains=workload.domains,
            sending_domain=identity.sending_domain,
            sessions=workload.sessions,
            per_connection=workload.per_connection,
            submission=workload.submission,
        )
        program = ["-m", "bench.source", json.dumps(asdict(settings))]
        self._cgroup: Path | None = None
        if workload.submission == "sendmail":
            self._cgroup = self._exits.enter_context(cpu.own_cgroup("bench-source"))
            command = [
                *("sh", "-ec", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(self._cgroup)),
                *host.container.enter_command(["env", f"PYTHONPATH={PROGRAMS}", "python3"]),
                *program,
            ]
        else:
            command = command_in(host_namespace(host.zone), [sys.executable, *program])
        self._program = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._expect_line()

    def __enter__(self) -> Application:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.kill()
        self._program.wait()
        self._exits.close()

    def begin(self) -> None:
        """Let it send."""
        assert self._program.stdin is not None
        self._program.stdin.write("\n")
        self._program.stdin.flush()

    def finish(self) -> dict[str, Any]:
        """Wait until it has nothing left to send; its account (`bench.source.Account` and CPU)."""
        account: dict[str, Any] = json.loads(self._expect_line())
        return account

    def mta_cpu(self, account: Mapping[str, Any]) -> float:
        """CPU seconds of the `sendmail` programs that it called, and of what these left behind."""
        if self._cgroup is None:
            return 0.0
        return max(0.0, cpu.seconds_of(self._cgroup) - float(account["cpu"]))

    def _expect_line(self) -> str:
        assert self._program.stdout is not None
        line = self._program.stdout.readline()
        if not line:
            raise LabError("The application that sends ended; its words are above.")
        return line


def wait_for(
    receiver: Receiver, messages: int, *, stalled: Callable[[], None] | None = None
) -> None:
    """Return when so many came, or nothing new for a while; `stalled` is called every 5 s of it."""
    seen, since = 0, time.monotonic()
    while (report := receiver.wait(5.0))["distinct"] < messages:
        if report["distinct"] > seen:
            seen, since = report["distinct"], time.monotonic()
        elif time.monotonic() - since > _STALLED:
            return
        elif stalled is not None:
            stalled()
