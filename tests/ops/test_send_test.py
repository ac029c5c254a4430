"""`postern send-test`: one message from each host, and its fate in the exit status."""

from collections.abc import Sequence
from typing import Any

import pytest

from ops.deployment import CannotTell
from ops.send_test import PROGRAM
from tests.ops.hosts import FIRST, Hosts


def fate(outcome: str, **more: Any) -> dict[str, Any]:
    return {
        "to": "me@gmail.example",
        "from": "postern-test@mail.example.com",
        "message_id": "<x@mail.example.com>",
        "subject": "Postern test x",
        "seconds": 1.5,
        "submission_id": "AAAAAAAA000001",
        "queue_id": "AAAAAAAA000002",
        "outcome": outcome,
        "words": "250 2.0.0 OK [gsmtp]",
        "relay": "mx.gmail.example. [192.0.2.1]",
        "tls": {"version": "TLSv1.3", "verify": "OK", "cipher": "x"},
        **more,
    }


def test_each_host_sends_one(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, lambda *_: fate("delivered"))

    result = hosts.postern("send-test", "--to", "me@gmail.example", "--wait", "30")

    assert result.exit_code == 0
    assert sorted(host for host, _ in hosts.asked) == ["i-0aaa", "i-0bbb"]
    assert hosts.asked[0][1] == [PROGRAM, "--to=me@gmail.example", "--wait=30"]
    for words in (
        "250 2.0.0 OK [gsmtp]",
        "TLSv1.3, certificate OK",
        "AAAAAAAA000001 → AAAAAAAA000002",
        "spf=pass, dkim=pass with header.d=mail.example.com, and dmarc=pass",
        "원문 보기",
    ):
        assert words in result.stdout


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        (("delivered", "delivered"), 0),
        (("delivered", "bounced"), 1),
        (("refused", "deferred"), 1),
        (("delivered", "deferred"), 2),
        (("unknown", "delivered"), 2),
    ],
)
def test_the_worst_fate_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, outcomes: tuple[str, str], status: int
) -> None:
    def answer(host: str, _: Sequence[str]) -> dict[str, Any]:
        return fate(outcomes[0 if host == FIRST.instance_id else 1])

    found, document = Hosts(monkeypatch, answer).json("send-test", "--to", "me@gmail.example")

    assert found == status
    assert [message["outcome"] for message in document["messages"]] == list(outcomes)


def test_what_was_not_delivered_comes_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for outcome, remedy in {
        "deferred": "postern queue show AAAAAAAA000002",
        "bounced": "a code that begins with 5.7",
        "refused": "postern suppressions remove me@gmail.example",
    }.items():
        hosts = Hosts(monkeypatch, lambda *_, outcome=outcome: fate(outcome))
        shown = hosts.postern("send-test", "--to", "me@gmail.example").stdout
        assert remedy in shown
        assert "Authentication-Results" not in shown


def test_no_answer_is_no_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Hosts(monkeypatch, lambda *_: CannotTell("its agent is silent"))

    assert silent.json("send-test", "--to", "me@gmail.example")[0] == 2
