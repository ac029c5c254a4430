"""`postern suppressions`: every host's list as one, and damage that nobody overlooks."""

from collections.abc import Sequence
from typing import Any

import pytest

from ops.deployment import CannotTell
from ops.suppressions import PROGRAM
from tests.ops.hosts import FIRST, Hosts

LEARNT = {
    "address": "gone@x.example",
    "by": "receiver",
    "since": 1795660663,
    "until": 1798252663,
    "words": "550 5.1.1 [no] such user",
}


def listing(*entries: dict[str, Any], damaged: int = 0) -> dict[str, Any]:
    return {"days": 30, "total": len(entries), "damaged": damaged, "suppressions": list(entries)}


def test_an_address_is_listed_once_with_its_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {**LEARNT, "address": "b@x.example", "by": "operator", "until": None, "words": ""}

    def answer(host: str, _: Sequence[str]) -> dict[str, Any]:
        return listing(LEARNT, other) if host == FIRST.instance_id else listing(LEARNT)

    hosts = Hosts(monkeypatch, answer)

    status, listed = hosts.json("suppressions", "list")

    assert status == 0
    assert {one["address"]: one["zones"] for one in listed["suppressions"]} == {
        "gone@x.example": ["us-east-1a", "us-east-1b"],
        "b@x.example": ["us-east-1a"],
    }
    shown = hosts.postern("suppressions", "list").stdout
    for words in ("550 5.1.1 [no] such user", "2026-11-26", "for ever", "an operator's word"):
        assert words in shown


def test_damage_is_wrong_and_a_silent_host_is_not_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Hosts(monkeypatch, lambda *_: listing(damaged=2)).json("suppressions", "list")[0] == 1
    done: dict[str, Any] = {"done": ["a@x.example"], "not_done": [], "damaged": 2}
    assert Hosts(monkeypatch, lambda *_: done).json("suppressions", "add", "a@x.example")[0] == 1

    silent = Hosts(monkeypatch, lambda *_: CannotTell("its agent is silent"))
    status, listed = silent.json("suppressions", "list")
    assert (status, listed["verdict"], len(listed["errors"])) == (2, "unknown", 2)


def test_what_one_host_does_not_have_is_removed_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(host: str, argv: Sequence[str]) -> dict[str, Any]:
        has = argv[2:] if host == FIRST.instance_id else []
        return {
            "done": [one.lower() for one in has if "gone" in one.lower()],
            "not_done": [
                {"address": one, "why": "not on the list"}
                for one in argv[2:]
                if one not in has or "gone" not in one.lower()
            ],
            "damaged": 0,
        }

    hosts = Hosts(monkeypatch, answer)

    assert hosts.postern("suppressions", "remove", "Gone@x.example").exit_code == 0
    status, changed = hosts.json("suppressions", "remove", "Gone@x.example", "b@x.example")

    assert status == 1
    assert changed["done"] == [{"address": "gone@x.example", "zones": ["us-east-1a"]}]
    assert changed["not_done"] == [{"address": "b@x.example", "why": "not on the list"}]


def test_an_operators_suppression_may_end(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(monkeypatch, lambda *_: {"done": ["a@x.example"], "not_done": [], "damaged": 0})

    assert hosts.postern("suppressions", "add", "a@x.example", "--days", "7").exit_code == 0
    assert hosts.asked[0][1] == [PROGRAM, "add", "--days=7", "a@x.example"]
