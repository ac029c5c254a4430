"""`queue_volume/move-deferred`: a message is whole in one of two queues, whatever happens."""

import fcntl
from pathlib import Path
from typing import Any

import pytest

from tests.user_data.program import program


class Killed(BaseException):
    """In place of SIGKILL or a power loss: nothing of the program runs after it."""


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    for name in ("mqueue", "mqueue-deferred"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def mover(volume: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = program("queue_volume/move-deferred")
    monkeypatch.setattr(module, "VOLUME", volume)
    return module


def job(volume: Path, id: str, *, tries: int) -> Path:  # noqa: A002
    # As sendmail writes it: what users choose comes after it.
    envelope = f"V8\nT1795689935\nK1795689940\nN{tries}\nP30519\nI7/0/1\nHSubject:\n\tx\n N9\n.\n"
    file = volume / "mqueue" / f"qf{id}"
    file.write_text(envelope)
    (volume / "mqueue" / f"df{id}").write_text(f"body of {id}")
    return file


def names(volume: Path) -> dict[str, set[str]]:
    return {queue.name: {file.name for file in queue.iterdir()} for queue in volume.iterdir()}


def test_what_was_tried_is_moved_and_what_is_new_stays(mover: Any, volume: Path) -> None:
    job(volume, "NEW", tries=0)
    job(volume, "OLD", tries=1)
    job(volume, "HELD", tries=3).rename(volume / "mqueue/hfHELD")

    mover.main([])

    assert names(volume) == {
        "mqueue": {"qfNEW", "dfNEW", "hfHELD", "dfHELD"},
        "mqueue-deferred": {"qfOLD", "dfOLD"},
    }
    assert (volume / "mqueue-deferred/dfOLD").read_text() == "body of OLD"


def test_what_sendmail_is_delivering_stays(mover: Any, volume: Path) -> None:
    with job(volume, "BUSY", tries=1).open() as envelope:
        fcntl.flock(envelope, fcntl.LOCK_EX)
        mover.main([])

    assert names(volume)["mqueue-deferred"] == set()


def test_what_was_written_anew_while_its_lock_was_taken_stays(
    mover: Any, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    envelope = job(volume, "ANEW", tries=1)

    def lock(_: int, __: int) -> None:
        fresh = envelope.with_name("tfANEW")
        fresh.write_text(envelope.read_text())
        fresh.rename(envelope)

    monkeypatch.setattr(mover.fcntl, "flock", lock)
    mover.main([])

    assert names(volume)["mqueue-deferred"] == set()


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("step", ["hardlink_to", "rename", "unlink"])
@pytest.mark.parametrize("done", [False, True])
def test_killed_at_any_step_it_leaves_one_whole_message(
    mover: Any, volume: Path, monkeypatch: pytest.MonkeyPatch, step: str, done: bool, back: bool
) -> None:
    job(volume, "OLD", tries=1)
    if back:
        mover.main([])
    arguments = ["back"] if back else []
    real = getattr(Path, step)

    def killed(self: Path, *argument: Path) -> None:
        if done:
            real(self, *argument)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Path, step, killed)
        with pytest.raises(Killed):
            mover.main(arguments)

    envelopes = list(volume.glob("*/qfOLD"))
    assert len(envelopes) == 1
    assert envelopes[0].with_name("dfOLD").read_text() == "body of OLD"

    mover.main(arguments)  # and the next run tidies up
    moved, left = ("mqueue", "mqueue-deferred") if back else ("mqueue-deferred", "mqueue")
    assert names(volume) == {moved: {"qfOLD", "dfOLD"}, left: set()}


def test_a_message_of_the_same_name_is_never_overwritten(
    mover: Any, volume: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job(volume, "TWIN", tries=1)
    (volume / "mqueue-deferred/dfTWIN").write_text("another")
    job(volume, "OLD", tries=1)

    with pytest.raises(SystemExit):
        mover.main([])

    assert (volume / "mqueue-deferred/dfTWIN").read_text() == "another"
    assert (volume / "mqueue/dfTWIN").read_text() == "body of TWIN"
    assert "TWIN" in capsys.readouterr().err
    assert "qfOLD" in names(volume)["mqueue-deferred"]


def test_a_body_that_vanishes_while_it_is_looked_at_stops_nothing(
    mover: Any, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job(volume, "OLD", tries=1)
    (volume / "mqueue/dfGONE").write_text("delivered meanwhile")
    real = Path.stat

    def stat(self: Path, **options: bool) -> Any:
        if self.name == "dfGONE":
            self.unlink(missing_ok=True)
        return real(self, **options)

    monkeypatch.setattr(Path, "stat", stat)
    mover.main([])

    assert names(volume)["mqueue-deferred"] == {"qfOLD", "dfOLD"}
