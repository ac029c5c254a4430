"""`postern queue`: all hosts' queues as one, and no deed that is told but not done."""

from collections.abc import Sequence
from typing import Any

import pytest

from ops.deployment import CannotTell
from ops.queue import PROGRAM, age
from tests.ops.hosts import FIRST, SECOND, Hosts

NO_DEEDS = {"done_total": 0, "done": [], "not_done_total": 0, "not_done": []}
BUSY = "450 4.2.1 Mailbox busy"


def message(message_id: str, created: int = 1000) -> dict[str, Any]:
    return {
        "id": message_id,
        "queue": "mqueue",
        "state": "active",
        "sender": "hello@mail.example.com",
        "recipients": ["a@x.example"],
        "recipients_left_out": 0,
        "size": 4,
        "created": created,
        "last_try": created,
        "tries": 1,
        "reason": BUSY,
        "being_delivered": False,
    }


def listing(*messages: dict[str, Any], age_seconds: int = 60) -> dict[str, Any]:
    group = {
        "destination": "x.example",
        "reason": BUSY,
        "messages": len(messages),
        "oldest_age_seconds": age_seconds,
    }
    return {
        "time": 5000,
        "total": len(messages),
        "groups": [group] if messages else [],
        "groups_left_out": 0,
        "messages": list(messages),
        "messages_left_out": 0,
    }


def deeds(
    done: Sequence[str] = (), not_done: dict[str, str] | None = None, outcome: str = "deleted"
) -> dict[str, Any]:
    return {
        "done_total": len(done),
        "done": [{"id": one, "queue": "mqueue", "outcome": outcome} for one in done],
        "not_done_total": len(not_done or {}),
        "not_done": [{"id": one, "why": why} for one, why in (not_done or {}).items()],
    }


def test_the_hosts_lists_are_one_that_says_which_host(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = {
        FIRST.instance_id: listing(message("AAAAAAAA000001", 2000), message("AAAAAAAA000002", 900)),
        SECOND.instance_id: listing(message("BBBBBBBB000001", 1000), age_seconds=900),
    }
    hosts = Hosts(monkeypatch, lambda host, _: lists[host])

    status, listed = hosts.json("queue", "list", "--destination", "x.example", "--limit", "5")

    assert status == 0
    assert hosts.asked[0][1] == [PROGRAM, "list", "--destination=x.example", "--limit=5"]
    assert listed["groups"] == [
        {"destination": "x.example", "reason": BUSY, "messages": 3, "oldest_age_seconds": 900}
    ]
    assert [(one["zone"], one["id"]) for one in listed["messages"]] == [
        ("us-east-1a", "AAAAAAAA000002"),
        ("us-east-1b", "BBBBBBBB000001"),
        ("us-east-1a", "AAAAAAAA000001"),
    ]
    shown = hosts.postern("queue", "list")
    assert shown.exit_code == 0
    for word in ("AAAAAAAA000002", "us-east-1b", BUSY, "a@x.example"):
        assert word in shown.stdout


def test_a_host_that_cannot_be_asked_is_no_empty_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(host: str, _: Sequence[str]) -> dict[str, Any] | CannotTell:
        return listing() if host == FIRST.instance_id else CannotTell("its agent is silent")

    hosts = Hosts(monkeypatch, answer)

    status, listed = hosts.json("queue", "list")

    assert status == 2
    assert listed["verdict"] == "unknown"
    assert listed["errors"] == ["us-east-1b: its agent is silent"]


def test_an_id_is_unknown_only_when_no_host_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(host: str, _: Sequence[str]) -> dict[str, Any]:
        unknown = {"AAAAAAAA000009": "unknown"}
        if host == FIRST.instance_id:
            return deeds(["AAAAAAAA000001"], unknown, "held")
        return deeds([], {"AAAAAAAA000001": "unknown", **unknown})

    hosts = Hosts(monkeypatch, answer)

    status, done = hosts.json("queue", "hold", "AAAAAAAA000001", "AAAAAAAA000009")

    assert status == 1
    assert [(one["id"], one["zone"]) for one in done["done"]] == [("AAAAAAAA000001", "us-east-1a")]
    assert done["not_done"] == [{"id": "AAAAAAAA000009", "why": "unknown"}]


@pytest.mark.parametrize("action", ["retry", "hold", "release", "delete"])
def test_what_was_not_done_is_told_by_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    hosts = Hosts(
        monkeypatch,
        lambda *_: deeds([], {"AAAAAAAA000001": "it is being delivered right now"}),
    )

    yes = ["--yes"] if action == "delete" else []
    result = hosts.postern("queue", action, "AAAAAAAA000001", *yes)

    assert result.exit_code == 1
    assert "not done, it is being delivered right now" in result.stdout


@pytest.mark.parametrize("action", ["retry", "hold", "release", "delete"])
def test_nothing_is_done_to_everything_by_default(
    monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    hosts = Hosts(monkeypatch, lambda *_: NO_DEEDS)

    assert hosts.postern("queue", action).exit_code == 2
    assert hosts.asked == []
    assert hosts.postern("queue", action, "--all", *(["--yes"] if action == "delete" else []))
    assert "--all" in hosts.asked[0][1]


def test_deleting_shows_what_would_go_and_takes_a_yes_for_that_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(host: str, argv: Sequence[str]) -> dict[str, Any]:
        if argv[1] == "list":
            return listing(message("AAAAAAAA000001")) if host == FIRST.instance_id else listing()
        return deeds(["AAAAAAAA000001"]) if host == FIRST.instance_id else NO_DEEDS

    hosts = Hosts(monkeypatch, answer)

    refused = hosts.postern("queue", "delete", "--reason", "busy", says="n\n")
    assert refused.exit_code == 1
    assert "AAAAAAAA000001" in refused.stdout
    assert {argv[1] for _, argv in hosts.asked} == {"list"}

    deleted = hosts.postern("queue", "delete", "--reason", "busy", says="y\n")
    assert deleted.exit_code == 0
    assert "us-east-1a AAAAAAAA000001: deleted" in deleted.stdout
    assert hosts.asked[-1][1] == [PROGRAM, "delete", "--reason=busy", "--before=4999"]


def test_with_json_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, lambda *_: NO_DEEDS)

    status, answer = hosts.json("queue", "delete", "--all")
    assert (status, hosts.asked) == (2, [])
    assert "add --yes" in answer["error"]

    status, answer = hosts.json("queue", "delete", "--all", "--yes")
    assert (status, answer["verdict"]) == (0, "fine")


def test_a_message_is_shown_with_its_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {
        **message("AAAAAAAA000001"),
        "recipients": [{"address": "a@x.example", "reason": BUSY}],
        "headers": "Subject: [red]an invoice[/red]",
    }

    def answer(host: str, _: Sequence[str]) -> dict[str, Any]:
        return {"messages": [shown] if host == SECOND.instance_id else []}

    hosts = Hosts(monkeypatch, answer)

    result = hosts.postern("queue", "show", "AAAAAAAA000001")
    assert result.exit_code == 0
    assert "Subject: [red]an invoice[/red]" in result.stdout
    assert "i-0bbb" in result.stdout

    nowhere = Hosts(monkeypatch, lambda *_: {"messages": []})
    assert nowhere.postern("queue", "show", "AAAAAAAA000002").exit_code == 1


def test_one_host_can_be_named_by_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, lambda *_: listing())

    assert hosts.postern("queue", "list", "--host", "us-east-1b").exit_code == 0
    assert [host for host, _ in hosts.asked] == [SECOND.instance_id]
    assert hosts.postern("queue", "list", "--host", "us-east-1x").exit_code == 2


@pytest.mark.parametrize(
    ("seconds", "shown"), [(59, "59 s"), (600, "10 min"), (12000, "3 h 20 min"), (90000, "1 d 1 h")]
)
def test_ages_are_told_in_two_units(seconds: float, shown: str) -> None:
    assert age(seconds) == shown
