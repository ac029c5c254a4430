"""The account of a stream: every message counted once, and each in the right column."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from lab.faults.ledger import Account, Bounces, settle
from lab.internet.receivers.sinkhole import Transaction

ACCEPTED = {"<1@x>": 10.0, "<2@x>": 11.0, "<3@x>": 12.0}


def delivery(message_id: str, *, at: float = 20.0, dkim: str = "pass") -> Transaction:
    return Transaction(
        time=at,
        message_id=message_id,
        mail_from="stream@mail.example.com",
        recipients=("u1@d1.run.sinkhole.example",),
        address="203.0.113.10",
        port=40_000,
        accepted=True,
        reply="250 2.0.0 Counted",
        signed=True,
        dkim=dkim,
        tls="TLSv1.3",
    )


ALL_DELIVERED = tuple(
    delivery(message_id, at=20.0 + number) for number, message_id in enumerate(ACCEPTED)
)


def account(
    *,
    deliveries: Iterable[Transaction] = ALL_DELIVERED,
    unanswered: Mapping[str, int] | None = None,
    returns: Mapping[str, float] | None = None,
) -> Account:
    return settle(
        accepted=ACCEPTED,
        unanswered=unanswered or {},
        deliveries=deliveries,
        returns=returns or {},
    )


def counted(settled: Account) -> dict[str, int]:
    """The columns that are not zero, the total left out."""
    assert settled.accepted == len(ACCEPTED)
    columns = asdict(settled)
    return {
        name: count
        for name, count in columns.items()
        if count and name not in ("accepted", "settled_at")
    }


def test_what_arrived_once_is_delivered_and_nothing_else() -> None:
    assert counted(account()) == {"delivered": 3}


def test_what_neither_arrived_nor_came_back_is_lost() -> None:
    assert counted(account(deliveries=ALL_DELIVERED[:2])) == {"delivered": 2, "lost": 1}
    assert counted(account(deliveries=[])) == {"lost": 3}


def test_each_surplus_copy_is_a_duplicate() -> None:
    copies = [*ALL_DELIVERED, delivery("<2@x>"), delivery("<2@x>"), delivery("<3@x>")]
    assert counted(account(deliveries=copies)) == {"delivered": 3, "duplicated": 3}


def test_the_copies_that_the_application_sent_again_are_repeated_and_not_duplicates() -> None:
    copies = [*ALL_DELIVERED, delivery("<2@x>"), delivery("<3@x>")]
    found = counted(account(deliveries=copies, unanswered={"<2@x>": 1}))
    assert found == {"delivered": 3, "duplicated": 1, "repeated": 1}


def test_one_attempt_without_an_answer_excuses_one_copy() -> None:
    copies = [*ALL_DELIVERED, delivery("<2@x>"), delivery("<2@x>"), delivery("<2@x>")]
    found = counted(account(deliveries=copies, unanswered={"<2@x>": 2}))
    assert found == {"delivered": 3, "duplicated": 1, "repeated": 2}


def test_a_copy_of_a_message_whose_acceptance_nobody_knows_is_not_a_delivery() -> None:
    copies = [*ALL_DELIVERED, delivery("<4@x>"), delivery("<4@x>", dkim="fail")]
    found = counted(account(deliveries=copies, unanswered={"<4@x>": 1}))
    assert found == {"delivered": 3, "repeated": 1, "unsigned": 1}


def test_what_came_back_is_returned_and_not_lost() -> None:
    found = counted(account(deliveries=ALL_DELIVERED[:2], returns={"<3@x>": 30.0}))
    assert found == {"delivered": 2, "returned": 1}


def test_what_arrived_and_came_back_too_is_counted_once_as_delivered() -> None:
    assert counted(account(returns={"<3@x>": 30.0})) == {"delivered": 3}


def test_the_mail_of_other_streams_does_not_count() -> None:
    others = [delivery("<other@x>"), delivery("<other@x>", dkim="fail")]
    found = account(deliveries=[*ALL_DELIVERED, *others], returns={"<another@x>": 99.0})
    assert counted(found) == {"delivered": 3}
    assert found.settled_at == 22.0


def test_a_copy_without_a_verified_signature_is_unsigned() -> None:
    copies = [
        delivery("<1@x>"),
        delivery("<2@x>", dkim="fail"),
        delivery("<3@x>", dkim=""),  # not verified is not trusted
    ]
    assert counted(account(deliveries=copies)) == {"delivered": 3, "unsigned": 2}


def test_the_stream_is_settled_when_the_last_message_met_its_end_for_the_first_time() -> None:
    assert account().settled_at == 22.0
    assert account(deliveries=[*ALL_DELIVERED, delivery("<1@x>", at=99.0)]).settled_at == 22.0
    assert account(deliveries=ALL_DELIVERED[:2], returns={"<3@x>": 30.0}).settled_at == 30.0
    assert account(deliveries=[]).settled_at == 0.0


BOUNCE = b"""\
From: MAILER-DAEMON@mail.example.com\r
Message-ID: <bounce@mail.example.com>\r
\r
550 5.1.1 <u1@d1.run.sinkhole.example>... User unknown\r
\r
Content-Type: message/rfc822\r
\r
From: <stream@mail.example.com>\r
Message-Id: <1@x>\r
\r
In the text Message-ID: <quoted@x> is no header.\r
"""


def receive(mailbox: Path, name: str, message: bytes, *, at: float) -> None:
    """Put a message into `mailbox` as a receiver does: the verdict's file comes last."""
    (mailbox / f"{name}.eml").write_bytes(message)
    (mailbox / f"{name}.json").write_text("{}")
    os.utime(mailbox / f"{name}.json", (at, at))


def test_a_bounce_gives_back_the_message_whose_header_it_carries(tmp_path: Path) -> None:
    receive(tmp_path, "00001", BOUNCE, at=30.0)
    returned = Bounces(tmp_path).returned()
    assert returned["<1@x>"] == 30.0
    assert "<quoted@x>" not in returned


def test_each_bounce_counts_from_its_arrival_and_the_first_for_a_message_decides(
    tmp_path: Path,
) -> None:
    bounces = Bounces(tmp_path)
    assert not bounces.returned()
    receive(tmp_path, "00001", BOUNCE, at=30.0)
    assert bounces.returned()["<1@x>"] == 30.0
    receive(tmp_path, "00002", BOUNCE.replace(b"<1@x>", b"<2@x>"), at=40.0)
    receive(tmp_path, "00003", BOUNCE, at=50.0)
    returned = bounces.returned()
    assert (returned["<1@x>"], returned["<2@x>"]) == (30.0, 40.0)


def test_a_message_that_is_still_being_written_waits_for_the_next_reading(tmp_path: Path) -> None:
    bounces = Bounces(tmp_path)
    (tmp_path / "00001.eml").write_bytes(BOUNCE[:40])
    assert not bounces.returned()
    receive(tmp_path, "00001", BOUNCE, at=30.0)
    assert bounces.returned()["<1@x>"] == 30.0
