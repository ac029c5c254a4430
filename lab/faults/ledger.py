"""The account of a stream: what became of every message that sendmail accepted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.internet.receivers.sinkhole import Transaction


@dataclass(frozen=True, kw_only=True)
class Account:
    """How many messages of a stream met which end.

    `accepted` is the sum of `lost`, of those that arrived at the receiver and of those that were
    `returned` to the postmaster instead. `duplicated` counts surplus copies, but not those that the
    application itself sent because an attempt had no answer: these are `repeated`.
    """

    accepted: int
    delivered: int
    returned: int
    duplicated: int
    repeated: int
    lost: int
    unsigned: int
    """Messages that reached the receiver without a valid DKIM signature."""
    settled_at: float
    """When the last message met its end for the first time (seconds since the epoch)."""


def settle(
    *,
    accepted: Mapping[str, float],
    unanswered: Mapping[str, int],
    deliveries: Iterable[Transaction],
    returns: Mapping[str, float],
) -> Account:
    """Compare what was `accepted` with what the receivers say.

    `accepted` has the time of each Message-ID's acceptance, `unanswered` how many attempts at it
    had no answer, `deliveries` are the sinkhole's records of what it took, `returns` has the time
    of each Message-ID that a bounce gave back.
    """
    copies: Counter[str] = Counter()
    ended = {message_id: at for message_id, at in returns.items() if message_id in accepted}
    unsigned = 0
    for delivery in deliveries:
        message_id = delivery.message_id
        if message_id in accepted or message_id in unanswered:
            copies[message_id] += 1
            unsigned += delivery.dkim != "pass"
            if message_id in accepted:
                ended[message_id] = min(delivery.time, ended.get(message_id, delivery.time))
    surplus = {message_id: count - 1 for message_id, count in copies.items() if count > 1}
    repeated = sum(
        min(count, unanswered.get(message_id, 0)) for message_id, count in surplus.items()
    )
    return Account(
        accepted=len(accepted),
        delivered=sum(message_id in copies for message_id in accepted),
        returned=sum(message_id in returns and message_id not in copies for message_id in accepted),
        duplicated=sum(surplus.values()) - repeated,
        repeated=repeated,
        lost=len(accepted) - len(ended),
        unsigned=unsigned,
        settled_at=max(ended.values(), default=0.0),
    )


class Bounces:
    """The messages that bounces gave back, read from the postmaster's mailbox as they arrive.

    A bounce carries the header of the message that it is about (RFC 3462).
    """

    def __init__(self, mailbox: Path) -> None:
        """`mailbox` is a receiver's directory of received messages."""
        self._mailbox = mailbox
        self._read: set[str] = set()
        self._returned: dict[str, float] = {}

    def returned(self) -> Mapping[str, float]:
        """Each Message-ID that any bounce named so far, and when (seconds since the epoch)."""
        for file in sorted(self._mailbox.glob("*.json")):  # the last file of each message
            if file.name not in self._read:
                self._read.add(file.name)
                message = file.with_suffix(".eml").read_bytes()
                for found in re.findall(rb"^Message-ID: (<[^>]+>)", message, re.M | re.I):
                    self._returned.setdefault(found.decode(), file.stat().st_mtime)
        return self._returned
