"""`postern doctor`: its exit status, its JSON, what --watch shows, and how long --settle waits."""

import json
from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner

from ops.cli import app
from ops.deployment import CannotTell, Deployment
from ops.doctor import command
from ops.doctor.command import Change, changes
from ops.verdicts import Finding, Verdict

FINE = Finding(check="SPF", verdict=Verdict.FINE, evidence="pass")
WRONG = Finding(check="SPF", verdict=Verdict.WRONG, evidence="fail", remedy="Mend it.")
UNTOLD = Finding(check="PTR", verdict=Verdict.UNKNOWN, evidence="no answer", remedy="Again.")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What each look finds, or fails with; after the last one comes Ctrl-C."""

    def set_looks(*looks: list[Finding] | CannotTell) -> None:
        coming: Iterator[list[Finding] | CannotTell] = iter(looks)

        def examine(*_: object, **_without: object) -> list[Finding]:
            look = next(coming, None)
            if look is None:
                raise KeyboardInterrupt
            if isinstance(look, CannotTell):
                raise look
            return look

        monkeypatch.setattr(Deployment, "load", lambda _name: None)
        monkeypatch.setattr(command, "examine", examine)

    monkeypatch.setattr("ops.doctor.command.time.sleep", lambda _seconds: None)
    return set_looks


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", "--environment", "example", *arguments])
    return result.exit_code, result.stdout


@pytest.mark.parametrize(
    ("findings", "status"), [([FINE], 0), ([FINE, UNTOLD], 2), ([UNTOLD, WRONG], 1), ([], 2)]
)
def test_the_exit_status_is_the_worst_verdict(
    looks: Callable[..., None], findings: list[Finding], status: int
) -> None:
    looks(findings)
    code, printed = run("--json")
    assert code == status
    document = json.loads(printed)
    assert document["environment"] == "example"
    assert [found["check"] for found in document["findings"]] == [f.check for f in findings]


def test_a_table_has_evidence_and_remedy(looks: Callable[..., None]) -> None:
    looks([WRONG])
    code, printed = run()
    assert code == 1
    assert all(word in printed for word in ("SPF", "fail", "Mend it."))


def test_without_an_account_nothing_can_be_told(looks: Callable[..., None]) -> None:
    looks(CannotTell("no credentials"))
    code, printed = run("--json")
    assert (code, json.loads(printed)) == (2, {"verdict": "unknown", "error": "no credentials"})


def test_what_changed_is_what_appeared_went_or_is_different() -> None:
    other = Finding(check="SPF", verdict=Verdict.FINE, evidence="pass, by another address")
    assert changes([FINE, UNTOLD], [FINE, UNTOLD]) == []
    assert changes([FINE], [WRONG]) == [Change(before=FINE, after=WRONG)]
    assert changes([FINE], [other]) == [Change(before=FINE, after=other)]
    assert changes([FINE], [FINE, UNTOLD]) == [Change(before=None, after=UNTOLD)]
    assert changes([FINE, UNTOLD], [FINE]) == [Change(before=UNTOLD, after=None)]


def test_watch_shows_changes_only_and_ends_with_the_last_verdict(
    looks: Callable[..., None],
) -> None:
    looks([FINE], [FINE], [WRONG], [WRONG], [WRONG, UNTOLD])
    code, printed = run("--watch", "--json")
    assert code == 1
    lines = [json.loads(line)["changes"] for line in printed.splitlines()]
    assert [[change["after"]["check"] for change in line] for line in lines] == [
        ["SPF"],
        ["SPF"],
        ["PTR"],
    ]
    assert lines[1][0]["before"]["verdict"] == "fine"


def test_watch_says_once_that_a_look_failed_and_goes_on(looks: Callable[..., None]) -> None:
    expired = CannotTell("the token has expired")
    looks([FINE], expired, expired, [FINE], [WRONG])
    code, printed = run("--watch", "--json")
    assert code == 1
    assert printed.count("expired") == 1
    assert len(printed.splitlines()) == 3
    looks([FINE], expired)
    assert run("--watch")[0] == 2


def test_watch_names_what_went(looks: Callable[..., None]) -> None:
    looks([FINE, UNTOLD], [FINE])
    code, printed = run("--watch")
    assert code == 0
    assert "No longer there: PTR" in printed


def test_a_pause_so_short_that_hosts_would_be_asked_all_the_time_is_refused() -> None:
    assert run("--watch", "--every", "1")[0] == 2


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(looks: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Clock:  # noqa: ARG001
    """In place of the one that `looks` does without."""
    clock = Clock()
    monkeypatch.setattr(command, "time", clock)
    return clock


def test_without_settle_the_first_look_counts(looks: Callable[..., None], clock: Clock) -> None:
    looks([WRONG], [FINE])
    assert run("--json")[0] == 1
    assert clock.slept == []


def test_settle_looks_again_until_all_is_fine(looks: Callable[..., None], clock: Clock) -> None:
    looks([WRONG], CannotTell("throttled"), [FINE, UNTOLD], [FINE], [WRONG])
    code, printed = run("--settle", "15", "--json")
    assert code == 0
    assert [found["check"] for found in json.loads(printed)["findings"]] == ["SPF"]
    assert clock.slept == [60, 60, 60]


@pytest.mark.parametrize(
    ("last", "status"), [([WRONG], 1), ([FINE, UNTOLD], 2), (CannotTell("no credentials"), 2)]
)
def test_settle_ends_in_time_and_the_last_look_counts(
    looks: Callable[..., None], clock: Clock, last: list[Finding] | CannotTell, status: int
) -> None:
    looks(*[[WRONG]] * 5, last, [FINE])
    assert run("--settle", "5", "--json")[0] == status
    assert clock.slept == [60] * 5


def test_settle_pauses_as_long_as_it_is_told(looks: Callable[..., None], clock: Clock) -> None:
    looks([WRONG], [WRONG], [WRONG])
    assert run("--settle", "1", "--every", "30")[0] == 1
    assert clock.slept == [30, 30]


def test_settle_and_watch_are_not_for_the_same_look() -> None:
    assert run("--settle", "1", "--watch")[0] == 2


def test_a_check_that_does_not_exist_cannot_be_left_out() -> None:
    result = CliRunner().invoke(
        app, ["doctor", "--environment", "example", "--without", "Blacklists"]
    )
    assert result.exit_code == 2
    told = " ".join(result.output.replace("│", " ").split())
    assert 'there is no check "Blacklists"' in told
    assert '"Blocklists"' in told
    assert '"Stacks"' in told


def test_what_is_left_out_is_what_was_named(
    looks: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks()
    asked: list[object] = []

    def examine(*_: object, without: object) -> list[Finding]:
        asked.append(without)
        return [FINE]

    monkeypatch.setattr(command, "examine", examine)
    assert run("--without", "Blocklists", "--without", "DMARC", "--json")[0] == 0
    assert asked == [["Blocklists", "DMARC"]]
