"""`suppressions/postern-suppressions`: who is learnt, and what is made of it."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.user_data.program import program

NOW = int(time.time())
DAY = 86400
# As sendmail 8.18.1 logged it.
UNKNOWN = (
    "6AQ2L74k003965: to=<n2@a.sinkhole.example>, delay=00:00:00, xdelay=00:00:00, mailer=esmtp, "
    "pri=60427, relay=mx.sinkhole.example. [198.51.100.27], dsn=5.1.1, "
    "reply=550 5.1.1 No such user, stat=User unknown"
)


def line(
    *,
    to: str = "<n2@a.sinkhole.example>",
    reply: str = "550 5.1.1 No such user",
    mailer: str = "esmtp",
) -> str:
    return (
        UNKNOWN.replace("<n2@a.sinkhole.example>", to)
        .replace("550 5.1.1 No such user", reply)
        .replace("mailer=esmtp", f"mailer={mailer}")
    )


class Host:
    """A host with a list, an access file, and a log of the lines that are given."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
        self.folder = folder
        self.log: list[tuple[int, str]] = []
        self.maps: list[str] = []
        (folder / "settings").write_text(
            f"SUPPRESSION_DAYS={days}\nPOSTMASTER=Postmaster@example.net\n"
        )
        (folder / "access").write_text("Connect:mail.example.com\tRELAY\n")
        self.program = program("suppressions/postern-suppressions")
        for name, value in {
            "SETTINGS": folder / "settings",
            "VOLUME": folder,
            "LIST": folder / "suppressions",
            "STATE": folder / "state",
            "ACCESS": folder / "access",
            "MAP": folder / "access.db",
            "is_mounted": lambda: True,
            "journal": self._journal,
            "run_makemap": self._makemap,
        }.items():
            monkeypatch.setattr(self.program, name, value)

    @property
    def file(self) -> Path:
        return self.folder / "suppressions"

    def _journal(self, cursor: str) -> Any:
        for place, (at, message) in enumerate(self.log, 1):
            if place > int(cursor or 0):
                yield at, message, str(place)

    def _makemap(self, source: str) -> None:
        self.maps.append(source)
        (self.folder / "access.db").write_text("map")

    def learn(self, *lines: str, at: int = NOW) -> list[str]:
        self.log += [(at, text) for text in lines]
        learnt: list[str] = self.program.learn(SimpleNamespace())["learnt"]
        return learnt

    def listed(self) -> list[str]:
        shown = self.program.show(SimpleNamespace(limit=100))["suppressions"]
        return [entry["address"] for entry in shown]

    def add(self, *addresses: str, days: int = 0) -> Any:
        return self.program.add(SimpleNamespace(addresses=addresses, days=days))

    def remove(self, *addresses: str) -> Any:
        return self.program.remove(SimpleNamespace(addresses=addresses))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path, monkeypatch, days=30)
    (tmp_path / "state").mkdir()
    return made


def test_who_does_not_exist_by_its_receivers_word_is_learnt_and_refused(host: Host) -> None:
    assert host.learn(UNKNOWN) == ["n2@a.sinkhole.example"]

    (entry,) = map(json.loads, host.file.read_text().splitlines())
    assert entry["words"] == "550 5.1.1 No such user"
    first, second = host.maps[-1].splitlines()
    assert first == "Connect:mail.example.com\tRELAY"
    assert second.startswith('To:n2@a.sinkhole.example\tERROR:5.1.1:"550 Suppressed: ')
    assert second.endswith('postern suppressions remove ADDRESS"')
    assert host.file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("to", "reply", "mailer"),
    [
        ("<n2@a.sinkhole.example>", "550 5.1.1 No such user", "smtp8"),
        ("<N2@A.sinkhole.example>", "550-5.1.1 The email account does not exist", "esmtp"),
        ("<n2@a.sinkhole.example>", "551 5.1.6 Moved", "esmtp"),
        (
            "<n2@a.sinkhole.example>",
            "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
            "esmtp",
        ),
    ],
)
def test_its_kin_is_learnt_too(host: Host, to: str, reply: str, mailer: str) -> None:
    assert host.learn(line(to=to, reply=reply, mailer=mailer)) == ["n2@a.sinkhole.example"]


@pytest.mark.parametrize(
    "message",
    [
        line(reply="550 Rejected"),  # sendmail itself logs dsn=5.1.1 for it
        line(reply="550 5.7.1 Not wanted here"),
        line(reply="550 5.2.1 The user you are trying to contact is receiving mail too quickly"),
        line(reply="550 5.1.1 Your address is on a block list"),
        line(reply="550 5.1.1 Recipient address rejected: Access denied"),
        line(reply="550 5.1.2 No such host"),
        line(reply="450 5.1.1 Perhaps later"),
        line(mailer="relay"),
        line(mailer="local"),
        UNKNOWN.replace(", reply=550 5.1.1 No such user", ""),
        UNKNOWN.replace("dsn=5.1.1", "dsn=4.2.0"),
        line(to="<a@x.example>,<b@x.example>"),
        line(to='<"a b"@x.example>'),
        line(to="<a$b@x.example>"),
        line(to="<a@[192.0.2.1]>"),
        line(to="<POSTMASTER@example.net>"),
        f"6AQ2L74k003965: DSN: {UNKNOWN}",
        # A recipient, or a message id, that looks like a whole line of the log.
        UNKNOWN.replace("<n2@a.sinkhole.example>", f'<"{UNKNOWN}"@x.example>'),
        f"6AQ2L74k003965: from=<a@mail.example.com>, msgid=<{UNKNOWN}>, relay=root@localhost",
        line(to="<a@x.example>, delay=00:00:00, xdelay=00:00:00, mailer=esmtp, pri=1"),
    ],
)
def test_nobody_is_learnt_by_anything_else(host: Host, message: str) -> None:
    assert host.learn(message) == []
    assert not host.file.exists()


def test_a_suppression_ends_its_days_after_the_last_refusal(host: Host) -> None:
    host.learn(line(to="<old@x.example>"), at=NOW - 29 * DAY)
    host.learn(line(to="<over@x.example>"), at=NOW - 31 * DAY)
    assert host.listed() == ["old@x.example"]
    assert "over@x.example" not in host.maps[-1] + host.file.read_text()

    host.learn(line(to="<old@x.example>"))

    (entry,) = map(json.loads, host.file.read_text().splitlines())
    assert entry["at"] == NOW


def test_what_is_over_leaves_the_map_without_a_new_line_in_the_log(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.learn(UNKNOWN)
    monkeypatch.setattr(host.program.time, "time", lambda: NOW + 30 * DAY + 1)

    host.learn()

    assert host.maps[-1] == "Connect:mail.example.com\tRELAY\n"


def test_with_zero_days_nobody_is_learnt_and_an_operators_word_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path, monkeypatch, days=0)
    (tmp_path / "state").mkdir()

    host.add("gone@x.example")

    assert host.learn(UNKNOWN) == []
    assert host.listed() == ["gone@x.example"]


def test_a_line_is_read_once_and_again_when_the_list_was_not_written(host: Host) -> None:
    host.learn(UNKNOWN)
    assert host.learn() == []

    (host.folder / "state/cursor").unlink()  # killed before it wrote where it was
    before = host.file.read_bytes()

    assert host.learn() == []
    assert host.file.read_bytes() == before


def test_where_reading_stopped_is_written_after_what_was_read(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(host.program, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            host.learn(UNKNOWN)

    assert host.learn() == ["n2@a.sinkhole.example"]


def test_whom_an_operator_removed_no_older_line_brings_back_and_a_newer_one_does(
    host: Host,
) -> None:
    host.learn(UNKNOWN, at=NOW - 100)

    assert host.remove("N2@a.sinkhole.example") == {
        "done": ["n2@a.sinkhole.example"],
        "not_done": [],
        "damaged": 0,
    }
    (host.folder / "state/cursor").unlink()
    assert host.learn() == []
    assert host.listed() == []
    assert "n2@" not in host.maps[-1]

    assert host.learn(UNKNOWN, at=int(time.time()) + 5) == ["n2@a.sinkhole.example"]


def test_an_operators_suppression_lasts_as_told_and_is_not_made_shorter_by_a_receiver(
    host: Host,
) -> None:
    host.add("a@x.example", "b@x.example", days=5)
    host.add("a@x.example")
    host.learn(line(to="<a@x.example>"))

    shown = host.program.show(SimpleNamespace(limit=100))["suppressions"]

    assert {e["address"]: (e["by"], e["until"] and e["until"] > NOW) for e in shown} == {
        "a@x.example": ("operator", None),
        "b@x.example": ("operator", True),
    }


def test_what_is_no_address_is_not_added(host: Host) -> None:
    junk = [
        "a",
        "a b@x.example",
        'a"@x.example',
        "a@x",
        "a@x.example\nTo:b",
        "a$j@x.example",
        "@x.y",
    ]

    result = host.add("good@x.example", *junk)

    assert result["done"] == ["good@x.example"]
    assert [one["address"] for one in result["not_done"]] == junk
    assert host.maps[-1].count("\n") == 2
    assert host.remove("other@x.example")["not_done"][0]["why"] == "not on the list"


def test_damage_is_told_and_what_is_whole_still_holds(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.add("good@x.example")
    damage = b'\xff\x00{"addr\n{"address": "evil\\nConnect:x", "at": 1, "by": "receiver"}\n[]\n'
    host.file.write_bytes(host.file.read_bytes() + damage)
    (host.folder / "access.db").unlink()

    applied = host.program.apply(SimpleNamespace())

    assert (applied["total"], applied["damaged"]) == (1, 3)
    assert "3 of the 4 lines" in capsys.readouterr().err
    assert host.maps[-1].splitlines()[1].startswith("To:good@x.example\t")
    host.learn(UNKNOWN)
    assert (host.folder / "suppressions.damaged").read_bytes().endswith(damage)
    assert set(host.listed()) == {"n2@a.sinkhole.example", "good@x.example"}


def test_mail_flows_though_the_list_cannot_be_read(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.file.mkdir()

    host.program.apply(SimpleNamespace())

    assert host.maps == ["Connect:mail.example.com\tRELAY\n"]
    assert "no recipient is suppressed" in capsys.readouterr().err


def test_the_map_is_made_only_when_it_differs(host: Host) -> None:
    host.learn(UNKNOWN)
    host.learn()
    host.program.apply(SimpleNamespace())
    assert len(host.maps) == 1

    (host.folder / "access").write_text("Connect:other.example.com\tRELAY\n")
    host.program.apply(SimpleNamespace())
    assert len(host.maps) == 2


def test_nothing_is_written_to_the_root_disk_while_the_volume_is_away(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.program, "is_mounted", lambda: False)

    with pytest.raises(host.program.Problem):
        host.learn(UNKNOWN)

    assert not host.file.exists()
    assert not (host.folder / "state/cursor").exists()
