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
# The attempt meets an answer that the sinkhole records.
_ANSWERED = ("defer-at-rcpt", "defer-at-data", "drop-after-data")
# The mail arrives all the same, over TLS or not.
_BORNE = {
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
        if behaviour in _ANSWERED:
            trial.wait_until_tried()
        trial.expect(
            not trial.deliveries(), f"Mail was delivered: the receiver was not {behaviour}"
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
        trial.settled()
        over_tls = {bool(delivery.tls) for delivery in trial.deliveries()}
        if behaviour == "expired-certificate":
            trial.expect(
                over_tls == {True}, "An expired certificate kept mail from being encrypted"
            )
            trial.expect(trial.logged("STARTTLS=client.*verify=FAIL"), "No certificate was expired")
        else:
            trial.expect(over_tls == {False}, f"There was TLS: the receiver was not {behaviour}")

    return Fault(name=f"receiver {_BORNE[behaviour]}", inflict=inflict)


def _one_message_a_connection(trial: Trial) -> None:
    """Queue runners use a connection for one message after another: a full queue, then."""
    trial.lab.sinkhole("refuse-connections")
    with trial.stream():
        pass
    trial.wait_until_tried()
    trial.lab.sinkhole("close-after-each")
    trial.repaired()
    trial.flush()
    trial.settled()
    closed = sum(answer.reply.startswith("421") for answer in trial.answers())
    trial.expect(closed, "No connection was used for a second message")
    trial.note(f"connections closed before a second message: {closed}")


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
    trial.wait_until_tried()
    trial.expect(not trial.deliveries(), "The first attempt was not deferred")
    trial.repaired()
    time.sleep(6)
    trial.flush()


FAULTS = (
    *map(_waited_out, _WAITED_OUT),
    Fault(name="receiver greylists for five seconds", inflict=_greylisting),
    Fault(name="receiver says 421 after each message", inflict=_one_message_a_connection),
    *map(_borne, _BORNE),
    *map(_final, _FINAL),
)
