"""Faults of the mail server's own processes."""

from __future__ import annotations

import time
from collections.abc import Mapping

from lab.faults.trial import Fault, Trial


def _nothing(trial: Trial) -> None:
    with trial.stream():
        pass
    trial.repaired()


def _sendmail_killed(trial: Trial) -> None:
    trial.lab.sinkhole("accept", delay_seconds=2)
    with trial.stream(at_least_seconds=30) as stream:
        for share in (0.2, 0.35, 0.5, 0.65, 0.8):
            stream.wait_until(share=share)
            trial.wait_for(_DELIVERING, "a delivery in progress")
            _kill(trial, "sendmail")
        trial.repaired()


# A connection from here to port 25 (0x19) that is established (01); clients use port 587.
_DELIVERING = "grep --quiet --extended-regexp ' [0-9A-F]{8}:0019 01 ' /proc/net/tcp"


def _opendkim_down(trial: Trial) -> None:
    with trial.stream(at_least_seconds=20) as stream:
        stream.wait_until(share=0.3)
        _drop_in(trial, "opendkim", "Restart=no")
        try:
            _kill(trial, "opendkim")
            # What was signed before leaves.
            trial.wait_until_empty()
            before = trial.account()
            time.sleep(8)
            after = trial.account()
            trial.expect(
                after.delivered == before.delivered,
                "While the signer was down messages left the host",
            )
            put_off = sum(stream.refusals.values())
            trial.expect(put_off, "While the signer was down no submission was put off")
            trial.note(f"submissions put off meanwhile: {put_off}")
        finally:
            _drop_in(trial, "opendkim", None)
        trial.run("systemctl start opendkim")
        trial.repaired()


def _crash_loop(trial: Trial) -> None:
    services = ("opendkim", "sendmail")
    with trial.stream(at_least_seconds=40) as stream:
        stream.wait_until(share=0.1)
        before = {service: _restarts(trial, service) for service in services}
        for _ in range(10):
            for service in services:
                _wait_until_running(trial, service)
                _kill(trial, service)
        for service in services:
            _wait_until_running(trial, service)
            crashes = _restarts(trial, service) - before[service]
            trial.expect(crashes >= 10, f"{service} crashed {crashes} times, not ten")
        trial.repaired()


def _wait_until_running(trial: Trial, service: str) -> None:
    trial.wait_for(f"[[ $(systemctl show -P MainPID {service}) != 0 ]]", f"{service} again")


def _restarts(trial: Trial, service: str) -> int:
    return int(trial.run(f"systemctl show -P NRestarts {service}"))


def _submission_interrupted(trial: Trial) -> None:
    """A service is stopped, with every process in it, while its messages wait for the signer."""
    with trial.stream(at_least_seconds=20) as stream:
        stream.wait_until(share=0.3)
        trial.run("systemctl kill --signal=STOP opendkim")
        try:
            # Every `sendmail -t' and the program in it.
            submitting = "pgrep --exact sendmail"
            trial.wait_for(submitting, "a call of sendmail")
            time.sleep(2)
            trial.run(f"pids=$({submitting}); kill $pids $(pgrep --parent ${{pids//$'\\n'/,}})")
            time.sleep(1)
        finally:
            trial.run("systemctl kill --signal=CONT opendkim")
        told = sum(count for words, count in stream.refusals.items() if "status 75" in words)
        trial.expect(told, "Nobody was told to try again")
        trial.note(f"calls of sendmail told to try again: {told}")
        trial.repaired()


def _no_process_left(trial: Trial) -> None:
    """Deliveries that get no answer take every process that the mail services may have.

    The limit is on each service's user, so that fork fails as when the host's table is full, and
    the lab can still enter it.
    """
    trial.lab.sinkhole("unanswered")
    _limit_processes(trial, {"sendmail": 40, "sendmail-client": 4, "opendkim": 8})
    try:
        with trial.stream() as stream:
            stream.wait_until(share=0.5)
            failed = "cannot fork|: fork "
            deadline = time.monotonic() + 60
            while not (failures := trial.logged(failed)) and time.monotonic() < deadline:
                time.sleep(1)
            trial.expect(failures, "sendmail never ran out of processes: the fault did not happen")
            trial.note(f"times that sendmail could not fork: {failures}")
            trial.lab.sinkhole("accept")
            _limit_processes(trial, _NO_LIMITS)
            trial.repaired()
    finally:
        _limit_processes(trial, _NO_LIMITS)


_NO_LIMITS = {"sendmail": None, "sendmail-client": None, "opendkim": None}


def _limit_processes(trial: Trial, limits: Mapping[str, int | None]) -> None:
    for service, limit in limits.items():
        _drop_in(trial, service, None if limit is None else f"LimitNPROC={limit}")
    trial.run(f"systemctl restart {' '.join(limits)}")


def _clock_wrong(trial: Trial) -> None:
    with trial.stream(at_least_seconds=30) as stream:
        stream.wait_until(share=0.2)
        try:
            trial.lab.set_clock(offset_seconds=3600)
            before = stream.share
            trial.expect(before < 1, "All was accepted before the clock was wrong")
            stream.wait_until(share=min(1, before + 0.3))
        finally:
            trial.lab.set_clock(offset_seconds=0)
        trial.repaired()


def _drop_in(trial: Trial, service: str, setting: str | None) -> None:
    """Add one setting to the service's unit until the next boot, or take it away again."""
    file = f"/run/systemd/system/{service}.service.d/fault.conf"
    change = (
        f"rm --force {file}"
        if setting is None
        else f"mkdir --parents $(dirname {file}); echo -e '[Service]\\n{setting}' >{file}"
    )
    trial.run(f"{change}; systemctl daemon-reload")


def _kill(trial: Trial, service: str) -> None:
    """Every process of the service, deliveries in progress among them, without a warning."""
    trial.run(f"systemctl kill --kill-whom=all --signal=KILL {service}")


FAULTS = (
    Fault(name="none, to compare with", inflict=_nothing),
    Fault(name="sendmail killed five times in mid-delivery", inflict=_sendmail_killed),
    Fault(name="OpenDKIM killed and kept down", inflict=_opendkim_down),
    Fault(name="sendmail and OpenDKIM crash-looping", inflict=_crash_loop),
    Fault(name="applications stopped while they submit", inflict=_submission_interrupted),
    Fault(name="no process left to fork", inflict=_no_process_left),
    Fault(name="the clock an hour ahead, then right again", inflict=_clock_wrong),
)
