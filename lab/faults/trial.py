"""One fault under a stream of mail, from the first message to the account of all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab.control import LabError
from lab.faults.ledger import Account, Bounces, settle
from lab.faults.stream import Stream
from lab.internet import addresses
from lab.internet.receivers.sinkhole import Transaction, Transactions
from lab.lab import Lab


class BrokenPromise(LabError):
    """A message was lost, left unsigned, or something else that Postern promises did not hold."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that can happen to a mail host, and how to make it happen."""

    name: str
    inflict: Callable[[Trial], None]
    """Streams mail, does the harm, undoes it, and says `Trial.repaired`."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a trial found."""

    fault: str
    account: Account
    seconds_to_recover: float
    """From the end of the fault until the last message met its end."""
    notes: tuple[str, ...]


class Trial:
    """What a fault works with: the lab, a stream of mail, and a place for what it observes."""

    def __init__(self, lab: Lab, *, messages: int, seconds: float, patience: float = 300) -> None:
        """The stream will have so many messages, over so many seconds if nothing hinders it.

        `patience` is how many seconds everything is waited for, acceptance and the end of each.
        """
        self.lab = lab
        self.messages = messages
        self.notes: list[str] = []
        self._stream = Stream(lab, messages=messages, seconds=seconds, patience=patience)
        self._patience = patience
        self._transactions = Transactions(lab.places.received / addresses.SINKHOLE_NAME)
        self._bounces = Bounces(lab.places.received / addresses.FIRST_RECEIVER_NAME)
        self._deliveries: list[Transaction] = []
        self._repaired_at: float | None = None

    @contextmanager
    def stream(self) -> Iterator[Stream]:
        """Submit the messages in the background; at its end all of them were accepted."""
        with self._stream:
            yield self._stream

    def repaired(self) -> None:
        """The fault is over: recovery begins."""
        self._repaired_at = time.time()

    def flush(self, *, after_silence: bool = False) -> None:
        """Try everything in the queue now, as an operator would; by itself it takes five minutes.

        After a silence attempts are still going on, for 30 s at most, and what is being tried is
        not tried a second time: so that is waited for.
        """
        if after_silence:
            time.sleep(31)
        self.run("sendmail -qR@")

    def run(self, script: str, *, timeout: float = 120) -> str:
        """What a shell script prints on the host; raises LabError when it fails."""
        done = self.lab.run("bash", "-euo", "pipefail", "-c", script, timeout=timeout)
        if done.returncode:
            raise LabError(f"`{script}` failed on the host: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def expect(self, kept: object, promise: str) -> None:
        """Raise BrokenPromise unless `kept`."""
        if not kept:
            raise BrokenPromise(promise)

    def note(self, observation: str) -> None:
        """Keep something worth reading beside the figures."""
        self.notes.append(observation)

    def account(self) -> Account:
        """What became of the messages so far."""
        self._deliveries += [one for one in self._transactions.read() if one.accepted]
        return settle(
            accepted=self._stream.accepted,
            unanswered=self._stream.unanswered,
            deliveries=self._deliveries,
            returns=self._bounces.returned(),
        )

    def settled(self) -> tuple[Account, float]:
        """The account when every message has met its end, and the seconds since the fault's end.

        Raises:
            BrokenPromise: some had not in time, or one came unsigned.
        """
        repaired_at = self._repaired_at or time.time()
        deadline = time.monotonic() + self._patience
        while (account := self.account()).lost and time.monotonic() < deadline:
            time.sleep(0.5)
        self.expect(
            not account.lost,
            f"{account.lost} of {account.accepted} accepted messages neither arrived nor came back "
            f"within {self._patience:.0f} s",
        )
        self.expect(not account.unsigned, f"{account.unsigned} messages came without a signature")
        return account, max(0.0, account.settled_at - repaired_at)


def run(fault: Fault, lab: Lab, *, messages: int, seconds: float) -> Result:
    """Inflict `fault` on the lab's host under a stream of mail.

    Raises:
        BrokenPromise: something that Postern promises did not hold.
        LabError: the trial itself did not work.
    """
    lab.sinkhole("accept")
    trial = Trial(lab, messages=messages, seconds=seconds)
    try:
        fault.inflict(trial)
        account, recovery = trial.settled()
    finally:
        _put_everything_right(lab)
    return Result(
        fault=fault.name,
        account=account,
        seconds_to_recover=recovery,
        notes=tuple(trial.notes),
    )


def _put_everything_right(lab: Lab) -> None:
    """What a fault that failed half-way may have left."""
    lab.block_smtp(blocked=False)
    lab.publish()
    lab.sinkhole("accept")
    lab.metadata(answering=True)
    lab.aws_apis()
