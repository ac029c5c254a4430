"""`postern send-test` on the laptop: what becomes of a message, in its receiver's words."""

import uuid
from collections.abc import Iterator

import pytest

from lab.internet.verdict import faults
from lab.lab import Lab
from tests.lab.laptop import postern, postern_json
from tests.lab.waiting import eventually

pytestmark = pytest.mark.lab


@pytest.fixture
def recipient() -> str:
    return f"t{uuid.uuid4().hex[:8]}@t.sinkhole.example"


@pytest.fixture(autouse=True)
def _an_accepting_sinkhole_and_an_empty_queue(lab: Lab) -> Iterator[None]:
    yield
    lab.sinkhole("accept")
    lab.run("postern-queue", "retry", "--all", timeout=120)


def test_a_delivered_message_passes_every_check(lab: Lab) -> None:
    status, told = postern_json(lab, "send-test", "--to", "someone@example.net")

    assert status == 0
    (message,) = told["messages"]
    assert message["outcome"] == "delivered"
    assert message["words"] == "2.0.0 Ok: verified and stored"
    assert message["tls"]["version"] == "TLSv1.3"
    assert message["tls"]["verify"] == "OK"
    (verdict,) = lab.wait_for(message_id=message["message_id"], receivers=["mx.example.net"])
    assert faults(verdict) == {}


def test_a_person_is_told_how_to_read_the_verdict(lab: Lab) -> None:
    sent = postern(lab, "send-test", "--to", "someone@example.org")

    assert sent.returncode == 0
    assert "delivered" in sent.stdout
    assert "Authentication-Results" in sent.stdout


@pytest.mark.parametrize(
    ("behaviour", "outcome", "words", "status"),
    [
        ("defer-at-rcpt", "deferred", "450 4.2.1 Mailbox busy", 2),
        ("bounce-at-data", "bounced", "550 5.7.1 Not wanted here", 1),
        ("bounce", "bounced", "550 5.1.1 No such user", 1),
    ],
)
def test_who_does_not_take_it_is_quoted(
    lab: Lab, recipient: str, behaviour: str, outcome: str, words: str, status: int
) -> None:
    lab.sinkhole(behaviour)

    ended, told = postern_json(lab, "send-test", "--to", recipient)

    assert (ended, told["messages"][0]["outcome"], told["messages"][0]["words"]) == (
        status,
        outcome,
        words,
    )


def test_silence_is_not_yet_known(lab: Lab, recipient: str) -> None:
    lab.sinkhole("unanswered")

    status, told = postern_json(lab, "send-test", "--to", recipient, "--wait", "3")

    assert (status, told["messages"][0]["outcome"]) == (2, "unknown")
    lab.sinkhole("accept")
    # Whoever waits for the receiver's greeting does so for five minutes; a restart ends him.
    assert lab.run("systemctl", "restart", "sendmail", timeout=120).returncode == 0
    lab.run("postern-queue", "retry", "--all", timeout=120)
    waiting = ("queue", "list", "--destination", recipient.partition("@")[2])
    eventually(lambda: not postern_json(lab, *waiting)[1]["total"])


def test_a_suppressed_recipient_is_refused_by_this_host(lab: Lab, recipient: str) -> None:
    assert postern(lab, "suppressions", "add", recipient).returncode == 0
    try:
        status, told = postern_json(lab, "send-test", "--to", recipient)
    finally:
        postern(lab, "suppressions", "remove", recipient)

    assert (status, told["messages"][0]["outcome"]) == (1, "refused")
    assert "postern suppressions remove ADDRESS" in told["messages"][0]["words"]
