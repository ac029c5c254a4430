"""`operations/postern-queue` over queues made by hand, in the form that sendmail writes them."""

import fcntl
import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.user_data.program import program

NOW = int(time.time())
BUSY = "450 4.2.1 Mailbox busy"


def job(
    queue: Path,
    id: str,  # noqa: A002 - what sendmail calls it
    recipients: dict[str, str],
    *,
    state: str = "qf",
    tries: int = 1,
    created: int = NOW - 60,
    note: str = "",
) -> Path:
    """A job with a body of four bytes, and what became of each recipient at the last try."""
    answers = "".join(
        (f"MDeferred: {words}\n" if words else "") + f"rRFC822; {address}\nRPFD:<{address}>\n"
        for address, words in recipients.items()
    )
    file = queue / f"{state}{id}"
    file.write_bytes(
        f"V8\nT{created}\nK{created + 5 if tries else 0}\nN{tries}\nP90486\n"
        f"{f'q{note}' + chr(10) if note else ''}MDeferred: of the whole message\nFbs\n"
        "$_localhost [127.0.0.1]\n$rESMTP\n${daemon_flags}EE\nS<hello@mail.example.com>\n"
        f"{answers}".encode()
        + b"H?P?Return-Path: <\x81g>\nH??Received: from mail.example.com\n\tby mail.example.com\n"
        b"H??Subject: R<x@y>\n.\nR<after@the.end>\n"
    )
    (queue / f"df{id}").write_text("body")
    return file


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    for name in ("mqueue", "mqueue-deferred", "mqueue-client"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def queue(volume: Path) -> Path:
    return volume / "mqueue"


@pytest.fixture
def tool(volume: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = program("operations/postern-queue")
    monkeypatch.setattr(module, "VOLUME", volume)
    return module


def answer(tool: Any, capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    tool.main(argv)
    return json.loads(capsys.readouterr().out)


def test_what_the_pace_held_is_one_group_for_each_destination(
    tool: Any, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "Paced: the warm-up plan allows no more today"
    for number in range(2):
        recipient = f"u{number}@x.example"
        file = job(queue, f"AAAAAAAA00000{number}", {recipient: words})
        text = file.read_bytes()
        file.write_bytes(text.replace(b"MDeferred: Paced", f"M<{recipient}>... Paced".encode()))

    (group,) = answer(tool, capsys, "list")["groups"]
    assert (group["reason"], group["messages"]) == (words, 2)

    for file in queue.glob("qf*"):
        asked = f"{file.name[2:]}:mail:u@x.example"
        old = next(line for line in file.read_bytes().split(b"\n") if line.startswith(b"M<"))
        new = f"Mpace map: lookup ({asked}): deferred".encode()
        file.write_bytes(file.read_bytes().replace(old, new))
    (group,) = answer(tool, capsys, "list")["groups"]
    assert (group["reason"], group["messages"]) == ("postern-pace does not answer", 2)


def test_what_waits_is_grouped_by_destination_and_reason(
    tool: Any, queue: Path, volume: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job(queue, "AAAAAAAA000001", {"a@x.example": BUSY, "b@Y.example": "Connection refused"})
    job(queue, "AAAAAAAA000002", {"c@x.example": BUSY}, created=NOW - 500)
    job(volume / "mqueue-client", "AAAAAAAA000003", {"d@x.example": ""}, tries=0)

    listed = answer(tool, capsys, "list")

    assert listed["total"] == 3
    rows = {(g["destination"], g["reason"]): g["messages"] for g in listed["groups"]}
    assert rows == {
        ("x.example", BUSY): 2,
        ("x.example", "not tried yet"): 1,
        ("y.example", "Connection refused"): 1,
    }
    # Its age, in a run of tests that began a while ago.
    assert 500 <= listed["groups"][0]["oldest_age_seconds"] <= time.time() - NOW + 500
    oldest = listed["messages"][0]
    assert oldest["id"] == "AAAAAAAA000002"
    assert oldest["sender"] == "hello@mail.example.com"
    assert (oldest["size"], oldest["tries"], oldest["state"]) == (4, 1, "active")
    assert oldest["last_try"] == oldest["created"] + 5
    assert [m["queue"] for m in listed["messages"]].count("mqueue-client") == 1


def test_a_message_that_is_moved_while_it_is_listed_is_listed_once(
    tool: Any, volume: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("mqueue", "mqueue-deferred"):
        job(volume / name, "AAAAAAAA000001", {"a@x.example": BUSY})

    listed = answer(tool, capsys, "list")

    assert [m["queue"] for m in listed["messages"]] == ["mqueue-deferred"]


def test_answers_that_differ_by_an_id_are_one_reason(
    tool: Any, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        words = f"421 4.7.28 Try again later d2e1a72fcca{number}-84b8aff8c0bsi - gsmtp"
        job(queue, f"AAAAAAAA00000{number}", {"a@x.example": words})
    job(queue, "AAAAAAAA000009", {"a@x.example": "421 4.7.0 198.51.100.27 is unknown"})

    listed = answer(tool, capsys, "list")

    assert [(g["reason"], g["messages"]) for g in listed["groups"]] == [
        ("421 4.7.28 Try again later * - gsmtp", 3),
        ("421 4.7.0 198.51.100.27 is unknown", 1),
    ]


def test_held_and_set_aside_jobs_are_listed_as_what_they_are(
    tool: Any, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job(queue, "AAAAAAAA000001", {"a@x.example": BUSY}, state="hf", note="held by an operator")
    job(queue, "AAAAAAAA000002", {"a@x.example": BUSY}, state="Qf")
    (queue / "tfAAAAAAAA000003").write_text("sendmail is writing it")

    listed = answer(tool, capsys, "list")

    assert {m["id"]: m["state"] for m in listed["messages"]} == {
        "AAAAAAAA000001": "held",
        "AAAAAAAA000002": "set-aside",
    }
    assert "held: held by an operator" in {g["reason"] for g in listed["groups"]}


def test_a_destination_and_a_reason_are_of_the_same_recipient(
    tool: Any, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job(queue, "AAAAAAAA000001", {"a@x.example": BUSY, "b@y.example": "Connection refused"})

    def found(*argv: str) -> int:
        total: int = answer(tool, capsys, "list", *argv)["total"]
        return total

    assert found("--destination", "X.example") == 1
    assert found("--destination", "x.example", "--reason", "mailbox BUSY") == 1
    assert found("--destination", "x.example", "--reason", "refused") == 0
    assert found("--destination", "example") == 0


def test_headers_are_shown_and_no_body(
    tool: Any, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job(queue, "AAAAAAAA000001", {"a@x.example": BUSY})

    (shown,) = answer(tool, capsys, "show", "AAAAAAAA000001")["messages"]

    assert shown["recipients"] == [{"address": "a@x.example", "reason": BUSY}]
    assert "Received: from mail.example.com\n\tby mail.example.com" in shown["headers"]
    assert "Subject: R<x@y>" in shown["headers"]
    assert "body" not in json.dumps(shown)


def test_a_job_is_deleted_whole(tool: Any, queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job(queue, "AAAAAAAA000001", {"a@x.example": BUSY})
    job(queue, "AAAAAAAA000002", {"a@x.example": BUSY}, state="Qf")
    job(queue, "AAAAAAAA000003", {"a@x.example": BUSY})

    result = answer(tool, capsys, "delete", "AAAAAAAA000001", "AAAAAAAA000002", "AAAAAAAA000009")

    assert sorted(file.name for file in queue.iterdir()) == ["dfAAAAAAAA000003", "qfAAAAAAAA000003"]
    assert result["done_total"] == 2
    assert result["not_done"] == [{"id": "AAAAAAAA000009", "why": "unknown"}]


def test_what_is_being_delivered_is_not_deleted(
    tool: Any, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = job(queue, "AAAAAAAA000001", {"a@x.example": BUSY})

    with file.open("r+b") as sendmails:
        fcntl.flock(sendmails, fcntl.LOCK_EX)
        assert answer(tool, capsys, "list")["messages"][0]["being_delivered"] is True
        result = answer(tool, capsys, "delete", "--all")

    assert result["done"] == []
    assert result["not_done"][0]["why"] == "it is being delivered right now"
    assert len(list(queue.iterdir())) == 2


def test_a_job_that_sendmail_wrote_anew_before_the_lock_was_had_is_not_deleted(
    tool: Any, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sendmail renames a new file into the old one's place, and holds the lock of the new one."""
    file = job(queue, "AAAAAAAA000001", {"a@x.example": BUSY})
    (listed,) = tool.read_jobs(tool.QUEUES[0])
    flock = fcntl.flock

    def late(opened: Any, operation: int) -> None:
        (queue / "tfAAAAAAAA000001").write_bytes(file.read_bytes())
        (queue / "tfAAAAAAAA000001").rename(file)
        flock(opened, operation)

    monkeypatch.setattr(tool.fcntl, "flock", late)

    assert tool.remove(listed) == "it is being delivered right now"
    assert len(list(queue.iterdir())) == 2


def test_a_body_never_goes_before_its_envelope(
    tool: Any, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sendmail would send an envelope without a body as "<<< No Message Collected >>>"."""
    job(queue, "AAAAAAAA000001", {"a@x.example": BUSY})
    (listed,) = tool.read_jobs(tool.QUEUES[0])
    unlink = Path.unlink
    removed = []

    def recorded(path: Path, missing_ok: bool = False) -> None:
        removed.append(path.name[:2])
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", recorded)
    tool.remove(listed)

    assert removed == ["qf", "df"]


def test_only_what_was_there_at_a_time_is_deleted(
    tool: Any, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job(queue, "AAAAAAAA000001", {"a@x.example": BUSY}, created=NOW - 60)
    job(queue, "AAAAAAAA000002", {"a@x.example": BUSY}, created=NOW)

    answer(tool, capsys, "delete", "--all", "--before", str(NOW - 30))

    assert [file.name for file in queue.glob("qf*")] == ["qfAAAAAAAA000002"]


@pytest.mark.parametrize(
    "argv",
    [
        ["delete"],
        ["hold", "--all", "--destination", "x.example"],
        ["retry", "-qI"],
        ["show", "../etc/passwd"],
    ],
)
def test_what_is_not_named_clearly_is_refused(tool: Any, argv: Sequence[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        tool.main(argv)

    assert ended.value.code == 2


def test_holding_is_sendmails_own_and_says_what_it_passed_over(
    tool: Any, queue: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job(queue, "AAAAAAAA000001", {"a@x.example": BUSY})
    job(queue, "AAAAAAAA000002", {"a@x.example": BUSY})
    job(queue, "AAAAAAAA000003", {"a@x.example": BUSY}, state="hf")
    called: list[Sequence[str]] = []

    def sendmail(argv: Sequence[str], **_: Any) -> None:
        called.append(argv)
        (queue / "qfAAAAAAAA000001").rename(queue / "hfAAAAAAAA000001")

    monkeypatch.setattr(subprocess, "run", sendmail)
    result = answer(tool, capsys, "hold", "AAAAAAAA000001", "AAAAAAAA000002", "AAAAAAAA000003")

    assert [argv[:6] for argv in called] == [["runuser", "-u", "smmta", "-g", "smmsp", "--"]]
    assert {"-Qheld by an operator", "-qIAAAAAAAA000001"} <= set(called[0])
    assert [deed["id"] for deed in result["done"]] == ["AAAAAAAA000001"]
    assert {deed["id"]: deed["why"] for deed in result["not_done"]} == {
        "AAAAAAAA000002": "it is being delivered right now",
        "AAAAAAAA000003": "only what waits is held (it is held)",
    }


@pytest.mark.slow
def test_twenty_thousand_jobs_are_listed_in_a_few_seconds(
    tool: Any, queue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = job(queue, "AAAAAAAA000000", {"a@x.example": BUSY})
    text, body = first.read_bytes(), (queue / "dfAAAAAAAA000000").read_bytes()
    for number in range(1, 20_000):
        (queue / f"qfAAAAAAAA{number:06}").write_bytes(text)
        (queue / f"dfAAAAAAAA{number:06}").write_bytes(body)
    began = time.process_time()

    listed = answer(tool, capsys, "list")

    assert time.process_time() - began < 10
    assert listed["groups"][0]["messages"] == listed["total"] == 20_000
    assert len(listed["messages"]) == 100
    assert listed["messages_left_out"] == 19_900
    assert len(json.dumps(listed)) < 100_000
