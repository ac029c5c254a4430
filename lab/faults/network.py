"""Faults between the host and the receivers: port 25 and DNS."""

from __future__ import annotations

import math

from lab.faults.trial import Fault, Trial
from lab.internet.hindered_dns import DELAY_SECONDS

_MOST_PROCESSES = 300
"""40 sockets in use, 200 queue runners, the sessions of the clients (sendmail.mc)."""


def _port_25_blocked(trial: Trial) -> None:
    trial.lab.block_smtp(blocked=True)
    try:
        with trial.stream():
            pass
        expect_few_processes(trial)
        trial.expect(trial.account().delivered == 0, "Mail arrived through a blocked port 25")
    finally:
        trial.lab.block_smtp(blocked=False)
    _recover(trial)


def _dns(fault: str) -> Fault:
    def inflict(trial: Trial) -> None:
        trial.lab.publish([fault])
        try:
            with trial.stream() as stream:
                pass
            expect_few_processes(trial)
            delivered = [delivery.time for delivery in trial.deliveries()]
        finally:
            trial.lab.publish()
        if fault == "slow":  # no domain was looked up before, so at least the first had to wait
            waited = min(delivered, default=math.inf) - min(stream.accepted.values())
            trial.expect(waited > DELAY_SECONDS - 0.5, f"Mail was delivered after {waited:.1f} s")
        else:
            trial.expect(not delivered, f"Mail was delivered with DNS {_DNS[fault]}")
        _recover(trial)

    return Fault(name=f"DNS {_DNS[fault]}", inflict=inflict)


_DNS = {
    "down": "not answering",
    "slow": "answering after three seconds",
    "servfail": "answering SERVFAIL",
}


def expect_few_processes(trial: Trial) -> None:
    processes = int(trial.run("pgrep -c -u smmta || true"))
    trial.expect(
        processes <= _MOST_PROCESSES,
        f"sendmail had {processes} processes, more than {_MOST_PROCESSES}",
    )
    trial.note(f"sendmail processes at the end of the stream: {processes}")


def _recover(trial: Trial) -> None:
    trial.repaired()
    trial.flush()


FAULTS = (
    Fault(name="port 25 blocked at the NAT gateway", inflict=_port_25_blocked),
    *map(_dns, _DNS),
)
