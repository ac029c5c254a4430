"""One fault under a stream of mail, from the first message to the account of all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lab.control import LabError
from lab.faults.ledger import Account, Bounces, settle
from lab.faults.stream import Stream
from lab.internet import addresses
from lab.internet.receivers.sinkhole import Transaction, Transactions
from lab.lab import Lab

_STANDSTILL_SECONDS = 15.0


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

    def __init__(self, lab: Lab, *, messages: int, seconds: float, patience: float = 700) -> None:
        """The stream will have so many messages, over so many seconds if nothing hinders it.

        `patience` is how many seconds everything is waited for, acceptance and the end of each: by
        itself the host tries a message again after five minutes.
        """
        self.lab = lab
        self.notes: list[str] = []
        self._stream = Stream(lab, messages=messages, seconds=seconds, patience=patience)
        self._patience = patience
        self._transactions = Transactions(lab.places.received / addresses.SINKHOLE_NAME)
        self._bounces = Bounces(lab.places.received / addresses.FIRST_RECEIVER_NAME)
        self._answers: list[Transaction] = []
        self._repaired_at: float | None = None
        self._flushed = False
        self._log_begin = 1 + int(self.run("stat --format=%s /var/log/mail.log"))

    @contextmanager
    def stream(self, *, at_least_seconds: float = 0) -> Iterator[Stream]:
        """Submit the messages in the background; at its end all of them were accepted."""
        self._stream.seconds = max(self._stream.seconds, at_least_seconds)
        with self._stream:
            yield self._stream

    @contextmanager
    def full_queue(self, *, until: float = 0.7) -> Iterator[Stream]:
        """As `stream`, when this share was accepted and port 25 held everything back so far.

        Whoever calls this opens port 25 again.
        """
        self.lab.block_smtp(blocked=True)
        with self._stream:
            self._stream.wait_until(share=until)
            self.expect(not self.account().delivered, "Mail arrived through a blocked port 25")
            yield self._stream

    def go_on_after(self, host: str) -> None:
        """Open port 25, wait until the successor of `host` is ready, and stream on from there."""
        self.lab.block_smtp(blocked=False)
        self.lab.wait_for_host(other_than=host)
        self.repaired()
        self._stream.go_on()
        self.flush()

    def repaired(self) -> None:
        """The fault is over: recovery begins."""
        self._repaired_at = time.time()

    def flush(self) -> None:
        """Try everything in the queue now, as an operator would; by itself it takes five minutes.

        What is just being tried is left out, so `settled` does it again when nothing arrives.
        """
        self._flushed = True
        self.run("sendmail -qR@")

    def run(self, script: str, *, timeout: float = 120) -> str:
        """What a shell script prints on the host; raises LabError when it fails."""
        done = self.lab.run("bash", "-euo", "pipefail", "-c", script, timeout=timeout)
        if done.returncode:
            raise LabError(f"`{script}` failed on the host: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def wait_for(self, script: str, what: str, *, timeout: float = 120) -> None:
        """Return when the shell script ends with status 0 on the host; raises LabError.

        `what` says in a few words what is waited for.
        """
        deadline = time.monotonic() + timeout
        while self.lab.run("bash", "-c", script).returncode:
            if time.monotonic() > deadline:
                raise LabError(f"Not within {timeout:.0f} s: {what}.")
            time.sleep(0.2)

    def wait_until_empty(self) -> None:
        """Return when nothing is left in the MTA's queues."""
        queued = "ls /var/spool/queue/mqueue{,-deferred} | grep --quiet ^qf"
        self.wait_for(f"! {queued}", "an empty queue", timeout=self._patience)

    def wait_until_tried(self) -> None:
        """Return when no message in the queue waits for its first attempt.

        N is the number of attempts (qf file, V8).
        """
        untried = "grep --quiet ^N0 /var/spool/queue/mqueue/qf* 2>/dev/null"
        self.wait_for(f"! {untried}", "each message's first attempt", timeout=self._patience)

    def logged(self, pattern: str) -> int:
        """How many lines of the mail log since the trial's begin match the regular expression."""
        log = f"tail --bytes=+{self._log_begin} /var/log/mail.log"
        return int(self.run(f"{log} | grep --count --extended-regexp '{pattern}' || true"))

    def expect(self, kept: object, promise: str) -> None:
        """Raise BrokenPromise unless `kept`."""
        if not kept:
            raise BrokenPromise(promise)

    def note(self, observation: str) -> None:
        """Keep something worth reading beside the figures."""
        self.notes.append(observation)

    def answers(self) -> Sequence[Transaction]:
        """What the receiver answered so far."""
        self._answers += self._transactions.read()
        return self._answers

    def deliveries(self) -> Sequence[Transaction]:
        """What the receiver took so far, every copy."""
        return [answer for answer in self.answers() if answer.accepted]

    def account(self) -> Account:
        """What became of the messages so far."""
        return settle(
            accepted=self._stream.accepted,
            unanswered=self._stream.unanswered,
            deliveries=self.deliveries(),
            returns=self._bounces.returned(),
        )

    def settled(self) -> tuple[Account, float]:
        """The account when every message has met its end, and the seconds since the fault's end.

        Raises:
            BrokenPromise: some had not in time, or one came unsigned.
        """
        repaired_at = self._repaired_at or time.time()
        deadline = time.monotonic() + self._patience
        outstanding, since = -1, 0.0
        while (account := self.account()).lost and time.monotonic() < deadline:
            if account.lost != outstanding:
                outstanding, since = account.lost, time.monotonic()
            elif self._flushed and time.monotonic() - since > _STANDSTILL_SECONDS:
                self.flush()
                since = time.monotonic()
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
