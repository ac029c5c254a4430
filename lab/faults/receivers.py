"""Faults of the receiver, put on by the sinkhole."""

from __future__ import annotations

import time

from lab.faults.network import expect_few_processes
from lab.faults.trial import Fault, Trial

# The mail waits until the receiver behaves again.
_WAITED_OUT = {
    "refuse-connections": "refuses connections",
    "unanswered": "takes connections and says nothing",
    "defer-at-rcpt": "defers each recipient (450)",
    "defer-at-data": "defers each message after its data (451)",
    "slow": "answers one byte a second",
    "drop-in-data": "hangs up in the middle of the data",
    "drop-after-data": "hangs up instead of answering the data",
}
# The mail arrives all the same.
_BORNE = {
    "close-after-each": "says 421 after each message",
    "expired-certificate": "has an expired certificate",
    "broken-starttls": "offers STARTTLS and fails at it",
    "no-starttls": "offers no STARTTLS",
}
# The mail comes back to the postmaster.
_FINAL = {
    "bounce": "refuses each recipient for good (550 5.1.1)",
    "bounce-at-data": "refuses each message for good (550 5.7.1)",
}


def _waited_out(behaviour: str) -> Fault:
    def inflict(trial: Trial) -> None:
        trial.lab.sinkhole(behaviour)
        with trial.stream():
            pass
        expect_few_processes(trial)
        trial.expect(
            trial.account().delivered == 0, f"Mail was delivered: the receiver was not {behaviour}"
        )
        trial.lab.sinkhole("accept")
        trial.repaired()
        trial.flush()

    return Fault(name=f"receiver {_WAITED_OUT[behaviour]}", inflict=inflict)


def _borne(behaviour: str) -> Fault:
    def inflict(trial: Trial) -> None:
        trial.lab.sinkhole(behaviour)
        with trial.stream():
            pass
        trial.repaired()

    return Fault(name=f"receiver {_BORNE[behaviour]}", inflict=inflict)


def _final(behaviour: str) -> Fault:
    def inflict(trial: Trial) -> None:
        trial.lab.sinkhole(behaviour)
        with trial.stream():
            pass
        trial.repaired()
        account, _ = trial.settled()
        trial.expect(
            account.returned == account.accepted,
            f"{account.returned} of {account.accepted} refused messages came back",
        )

    return Fault(name=f"receiver {_FINAL[behaviour]}", inflict=inflict)


def _greylisting(trial: Trial) -> None:
    trial.lab.sinkhole("greylist", greylist_seconds=5)
    with trial.stream():
        pass
    trial.expect(trial.account().delivered == 0, "The first attempt was not deferred")
    trial.repaired()
    time.sleep(6)
    trial.flush()


FAULTS = (
    *map(_waited_out, _WAITED_OUT),
    Fault(name="receiver greylists for five seconds", inflict=_greylisting),
    *map(_borne, _BORNE),
    *map(_final, _FINAL),
)
