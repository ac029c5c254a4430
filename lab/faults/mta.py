"""Faults of the mail server's own processes."""

from __future__ import annotations

import time

from lab.faults.trial import Fault, Trial


def _nothing(trial: Trial) -> None:
    with trial.stream():
        pass
    trial.repaired()


def _sendmail_killed(trial: Trial) -> None:
    with trial.stream() as stream:
        for share in (0.2, 0.35, 0.5, 0.65, 0.8):
            stream.wait_until(share=share)
            _kill(trial, "sendmail")
        trial.repaired()


def _opendkim_down(trial: Trial) -> None:
    with trial.stream() as stream:
        stream.wait_until(share=0.3)
        trial.run("systemctl stop opendkim; systemctl kill --signal=KILL opendkim || true")
        time.sleep(2)  # what was signed already leaves
        before = trial.account()
        time.sleep(8)
        after = trial.account()
        trial.expect(
            after.delivered == before.delivered, "While the signer was down messages left the host"
        )
        trial.note(f"{sum(stream.refusals.values())} submissions put off meanwhile")
        trial.run("systemctl start opendkim")
        trial.repaired()


def _crash_loop(trial: Trial) -> None:
    with trial.stream() as stream:
        stream.wait_until(share=0.2)
        for _ in range(10):
            _kill(trial, "opendkim")
            time.sleep(0.5)
            _kill(trial, "sendmail")
            time.sleep(1.5)
        trial.repaired()


def _no_process_left(trial: Trial) -> None:
    """Deliveries that get no answer take every process that sendmail's user may have."""
    trial.lab.sinkhole("unanswered")
    _limit_processes(trial, 40)
    try:
        with trial.stream() as stream:
            stream.wait_until(share=0.5)
            time.sleep(5)
            failures = int(trial.run("grep -c 'cannot fork\\|: fork ' /var/log/mail.log || true"))
            trial.expect(failures, "sendmail never ran out of processes: the fault did not happen")
            trial.note(f"sendmail could not fork {failures} times")
            trial.lab.sinkhole("accept")
            _limit_processes(trial, None)
            trial.repaired()
    finally:
        _limit_processes(trial, None)


def _limit_processes(trial: Trial, limit: int | None) -> None:
    drop_in = "/run/systemd/system/sendmail.service.d/processes.conf"
    change = (
        f"rm -f {drop_in}"
        if limit is None
        else f"mkdir -p ${{f%/*}}; echo -e '[Service]\\nLimitNPROC={limit}' >$f"
    )
    trial.run(f"f={drop_in}; {change}; systemctl daemon-reload; systemctl restart sendmail")


def _clock_wrong(trial: Trial) -> None:
    with trial.stream() as stream:
        stream.wait_until(share=0.2)
        try:
            trial.lab.set_clock(offset_seconds=3600)
            stream.wait_until(share=0.6)
        finally:
            trial.lab.set_clock(offset_seconds=0)
        trial.repaired()


def _kill(trial: Trial, service: str) -> None:
    """Every process of the service, deliveries in progress among them, without a warning."""
    trial.run(f"systemctl kill --kill-whom=all --signal=KILL {service} || true")


FAULTS = (
    Fault(name="none, to compare with", inflict=_nothing),
    Fault(name="sendmail killed five times in mid-delivery", inflict=_sendmail_killed),
    Fault(name="OpenDKIM killed and kept down", inflict=_opendkim_down),
    Fault(name="sendmail and OpenDKIM crash-looping", inflict=_crash_loop),
    Fault(name="no process left to fork", inflict=_no_process_left),
    Fault(name="the clock an hour ahead, then right again", inflict=_clock_wrong),
)
