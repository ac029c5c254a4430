"""`report/postern-report`, its parts one by one; `tests/lab/test_report.py` has the whole."""

import json
import os
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import dns.resolver
import pytest

from tests.user_data.program import program as load

NOW = datetime(2026, 11, 26, 3, 0, 0, tzinfo=UTC)


@pytest.fixture
def program(tmp_path: Path) -> ModuleType:
    """The program as a module, with `tmp_path` in place of the directories that it works in."""
    module: ModuleType = load("report/postern-report")
    for name in ("QUEUES", "STATE"):
        (tmp_path / name).mkdir()
        setattr(module, name, tmp_path / name)
    return module


@pytest.fixture
def queue(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The MTA's queue on a mounted volume; the submission program's is empty."""
    monkeypatch.setattr(Path, "is_mount", lambda _: True)
    for name in ("mqueue", "mqueue-deferred", "mqueue-client"):
        (program.QUEUES / name).mkdir()
    (program.QUEUES / "undeliverable").write_bytes(b"12345")
    return Path(program.QUEUES / "mqueue")


@pytest.mark.parametrize(
    ("queue_id", "created"),
    [
        # Written down in the lab.
        ("6AQ2BTRC002990", datetime(2026, 11, 26, 2, 11, 29, tzinfo=UTC)),
        ("6AQ2JwGK003670", datetime(2026, 11, 26, 2, 19, 58, tzinfo=UTC)),
        ("6BVNxxAA000001", datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("70100000000001", datetime(2027, 1, 1, 0, 0, 0, tzinfo=UTC)),
    ],
)
def test_a_queue_id_tells_when_its_message_came(
    program: ModuleType, queue_id: str, created: datetime
) -> None:
    now = created + timedelta(days=5)

    assert program.created(queue_id, now=now) == created
    assert program.created(queue_id, now=created - timedelta(minutes=1)) == created


@pytest.mark.parametrize("name", ["", "6AQ2B", "zzzzzzzz", "6Z02BTRC002990", "../../../etc"])
def test_what_is_no_queue_id_is_not_given_an_age(program: ModuleType, name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        program.created(name, now=NOW)


def test_the_queues_are_counted_by_the_names_of_their_files(
    program: ModuleType, queue: Path
) -> None:
    assert program.queues() == {
        "queue_depth": 0,
        "paced": 0,
        "oldest_paced_age_seconds": 0,
        "held": 0,
        "oldest_age_seconds": 0,
        "set_aside": 0,
        "orphans": 0,
        "undeliverable_bytes": 5,
    }

    def queue_id(minutes: int) -> str:
        moment = datetime.now(UTC) - timedelta(minutes=minutes)
        date = (moment.year - 1900, moment.month - 1, moment.day)
        digits = (*date, moment.hour, moment.minute, moment.second)
        return "".join(program.QUEUE_ID_CHARACTERS[d % 60] for d in digits) + f"{minutes:08}"

    for minutes in (5, 90, 30):
        for kind in ("qf", "df"):
            (queue / f"{kind}{queue_id(minutes)}").write_text("")
    (queue.parent / "mqueue-client" / f"qf{queue_id(7)}").write_text("")
    held = queue_id(300)
    for name in (f"hf{held}", f"df{held}", "QfAAA", "dfAAA", f"xf{queue_id(5)}"):
        (queue / name).write_text("")
    (queue / "dfjust-begun").write_text("")
    (queue / "dfleft-behind").write_text("")
    for file in queue.iterdir():
        if file.name != "dfjust-begun":  # a message that is being received has its body first
            os.utime(file, (time.time() - 7200,) * 2)

    counted = program.queues()

    assert counted.pop("oldest_age_seconds") == pytest.approx(90 * 60, abs=5)
    assert counted == {
        "queue_depth": 4,
        "paced": 0,
        "oldest_paced_age_seconds": 0,
        "held": 1,
        "set_aside": 1,
        "orphans": 1,
        "undeliverable_bytes": 5,
    }


def paced(program: ModuleType, state: object) -> Path:
    """What postern-pace wrote."""
    file = Path(program.QUEUES / "pace/state.json")
    file.parent.mkdir()
    file.write_text(json.dumps(state))
    return file


PLAN = {"day": 3, "days": 14, "allowance": 450, "sent": 450, "backlog_days": 1}


def test_what_was_told_to_wait_is_counted_by_itself(program: ModuleType, queue: Path) -> None:
    old = datetime.now(UTC) - timedelta(days=1)
    digits = (old.year - 1900, old.month - 1, old.day, old.hour, old.minute, old.second)
    begin = "".join(program.QUEUE_ID_CHARACTERS[digit % 60] for digit in digits)
    for number in range(3):
        (queue / f"qf{begin}00000{number}").touch()
    file = paced(
        program,
        {
            "warm_up": PLAN,
            "waiting": [
                [f"{begin}000000 0123", "gmail", "rate"],
                [f"{begin}000001 0123", None, "warm-up"],
                [f"{begin}000001 4567", None, "warm-up"],
                ["gone 0123", None, "warm-up"],
            ],
        },
    )

    counted = program.queues()
    assert (counted["queue_depth"], counted["paced"]) == (1, 2)
    assert counted["oldest_paced_age_seconds"] == pytest.approx(86_400, abs=5)
    assert program.warm_up() == {
        "warm_up": 1,
        "warm_up_day": 3,
        "warm_up_days": 14,
        "warm_up_allowance": 450,
        "warm_up_sent": 450,
        "warm_up_backlog_days": 1,
    }

    # A state that nobody keeps tells nothing, and what waits is what is in the queue.
    os.utime(file, (time.time() - 301,) * 2)
    assert (program.queues()["queue_depth"], program.queues()["paced"]) == (3, 0)
    with pytest.raises(OSError, match="silent for 301 s"):
        program.warm_up()


def test_a_plan_that_is_over_allows_everything_and_no_plan_says_nothing(
    program: ModuleType, queue: Path
) -> None:
    file = paced(program, {"warm_up": {**PLAN, "allowance": None}, "waiting": []})
    assert queue.exists()
    assert "warm_up_allowance" not in program.warm_up()
    file.write_text('{"warm_up": null, "waiting": []}')
    assert program.warm_up() == {"warm_up": 0}


@pytest.mark.slow
def test_twenty_thousand_messages_cost_no_second(program: ModuleType, queue: Path) -> None:
    for n in range(20_000):
        for kind in ("qf", "df"):
            (queue / f"{kind}6AQ2BTRC{n:06}").touch()

    begin = time.process_time()
    assert program.queues()["queue_depth"] == 20_000
    assert time.process_time() - begin < 1


def test_a_queue_that_is_not_mounted_is_no_empty_queue(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda _: False)

    with pytest.raises(OSError, match="not mounted"):
        program.queues()


def test_what_cannot_be_found_out_is_left_out_and_said(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> dict[str, Any]:
        raise OSError("the disk is gone")

    def works(*_: object, **__: object) -> dict[str, Any]:
        return {}

    for part in ("identity", "units", "reboot", "port_25", "dkim_key", "warm_up", "versions"):
        monkeypatch.setattr(program, part, works)
    monkeypatch.setattr(program, "queues", breaks)
    monkeypatch.setattr(program, "disks", lambda: {"root_disk_percent": 3})

    found, problems = program.report(probe=False, log=False)

    assert found.keys() == {"report", "time", "root_disk_percent"}
    assert problems == ["queues: OSError('the disk is gone')"]


def test_the_age_of_the_dkim_key_is_in_days(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = datetime.now(UTC) - timedelta(days=190, hours=12)
    (tmp_path / "created").write_text(f"{made.isoformat()}\n")
    monkeypatch.setattr(program, "DKIM_KEY_CREATED", tmp_path / "created")

    assert program.dkim_key() == {"dkim_key_age_days": 190.5}


def test_each_session_without_a_signer_is_counted_once(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = """\
6AQ2Nv01004179: Milter (opendkim): local socket name /run/opendkim/socket unsafe
6AQ2Nv01004179: Milter (opendkim): to error state
6AQ2Nv01004179: Milter: initialization failed, temp failing commands
6AQ2Nvm6004178: to=x@example.net, delay=00:00:00, mailer=relay, dsn=4.3.2, stat=Deferred
6AQ2OCBu004189: Milter: data, reject=451 4.3.2 Please try again later
6AQ2OCBu004189: Milter: data, reject=451 4.3.2 Please try again later
6AQ2OCBv004189: Milter: data, reject=550 5.7.1 never
6AQ2OCBw004189: to=<a@b>, reply=450 6AQ2OCBu004189: Milter: data, reject=451 4.3.2
"""
    monkeypatch.setattr(program, "output_of", lambda *_: lines)

    assert program.signer_failures() == 2


class Asked:
    """Stands in for the probe of one receiver after the other."""

    def __init__(self, program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.receivers: list[str] = []
        self.answers: dict[str, dict[str, Any]] = {}
        monkeypatch.setattr(program.subprocess, "run", self)

    def __call__(self, argv: list[str], **settings: object) -> object:
        # Nobody else is let out.
        assert (settings["user"], settings["extra_groups"]) == ("smmta", ())
        self.receivers.append(argv[-1])
        answer = self.answers.get(argv[-1], {"open": True, "words": f"{argv[-1]}: 220 mx"})

        class Done:
            stdout = json.dumps(answer)

        return Done()


@pytest.fixture
def asked(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(program, monkeypatch)


def test_one_receiver_in_turn_is_asked_each_quarter_of_an_hour(
    program: ModuleType, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = time.time()
    for minute in range(60):
        monkeypatch.setattr(program.time, "time", lambda now=begin + 60 * minute: now)
        assert program.port_25(probe=None)["port25_open"] == 1

    assert asked.receivers == ["gmail.com", "outlook.com", "yahoo.com", "gmail.com"]


def test_by_hand_nobody_is_asked_unless_it_is_wished(program: ModuleType, asked: Asked) -> None:
    assert program.port_25(probe=False) == {}
    assert asked.receivers == []

    looked = program.port_25(probe=True)

    assert looked == {"port25_open": 1, "port25_checked": "gmail.com: 220 mx"}
    assert program.port_25(probe=False) == looked
    assert asked.receivers == ["gmail.com"]


def test_an_answer_of_long_ago_is_not_told_any_more(
    program: ModuleType, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program.port_25(probe=True)
    later = time.time() + 1900
    monkeypatch.setattr(program.time, "time", lambda: later)

    assert program.port_25(probe=False) == {}
    assert asked.receivers == ["gmail.com"]


BLOCKED = {"open": False, "words": "mx: Connection timed out"}
UNKNOWN = {"open": None, "words": "not looked up"}
OPEN = {"open": True, "words": "mx: 220"}


@pytest.mark.parametrize(
    ("answers", "judgement"),
    [
        ((BLOCKED, BLOCKED, BLOCKED), 0),
        ((BLOCKED, UNKNOWN, OPEN), 1),
        ((BLOCKED, BLOCKED, UNKNOWN), None),
        ((UNKNOWN, UNKNOWN, UNKNOWN), None),
    ],
)
def test_port_25_is_blocked_only_when_nobody_can_be_connected_to(
    program: ModuleType, asked: Asked, answers: Any, judgement: int | None
) -> None:
    asked.answers = dict(zip(program.RECEIVERS, answers, strict=True))

    looked = program.port_25(probe=True)

    assert looked.get("port25_open") == judgement
    assert looked["port25_checked"]


@pytest.mark.parametrize(
    ("server", "found"),
    [
        (
            [b"220 mx ESMTP\r\n", b"250-mx\r\n250-STARTTLS\r\n250 SIZE\r\n", b"221 bye\r\n"],
            {"open": True, "words": "mx.example: 220 mx ESMTP", "tls": True},
        ),
        (
            [b"220-mx\r\n220 ESMTP\r\n", b"250-mx\r\n250 SIZE\r\n", b"221 bye\r\n"],
            {"open": True, "words": "mx.example: 220 mx", "tls": False},
        ),
        (
            [b"220 mx\r\n", b"502 unknown\r\n", b"221 bye\r\n"],
            {"open": True, "words": "mx.example: 220 mx", "tls": None},
        ),
        ([b"220 mx\r\n"], {"open": True, "words": "mx.example: 220 mx", "tls": None}),
        (
            [b"554 not you\r\n", b"221 bye\r\n"],
            {"open": True, "words": "mx.example: 554 not you", "tls": None},
        ),
        ([b"hello\r\n"], {"open": None, "words": "mx.example: no SMTP greeting", "tls": None}),
        ([], {"open": None, "words": "mx.example: connected, then Connection unexpectedly"}),
    ],
)
def test_a_receiver_tells_whether_smtp_passes_and_tls_is_offered(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, server: list[bytes], found: Any
) -> None:
    class Mx:
        preference, exchange = 10, "mx.example."

    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs:
            for answer in server:
                theirs.sendall(answer)
                if not theirs.recv(512):
                    return

    thread = threading.Thread(target=serve)
    monkeypatch.setattr(
        dns.resolver, "resolve", lambda _name, kind, **_: [Mx] if kind == "MX" else ["192.0.2.1"]
    )
    monkeypatch.setattr(program.socket, "create_connection", lambda *_, **__: ours)
    thread.start()
    answer = program.ask("example.com")
    thread.join()

    assert answer.pop("words").startswith(found.pop("words"))
    assert answer == found


def test_what_a_receiver_says_of_tls_is_told(program: ModuleType, asked: Asked) -> None:
    for tls, told in ((True, 1), (False, 0)):
        asked.answers = {name: {**OPEN, "tls": tls} for name in program.RECEIVERS}
        assert program.port_25(probe=True)["port25_tls"] == told
        assert program.port_25(probe=False)["port25_tls"] == told
    asked.answers = {name: {**OPEN, "tls": None} for name in program.RECEIVERS}
    assert "port25_tls" not in program.port_25(probe=True)
