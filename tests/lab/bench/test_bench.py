"""A bench of a few messages, from Postern's own setup to the written account."""

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from bench.results import Results
from lab.places import LAB_VARIABLE, PROJECT, Places

pytestmark = pytest.mark.lab

_COMMAND = (
    *(sys.executable, "-m", "bench", "--contenders", "postern,postfix", "--workloads", "many-0ms"),
    *("--queues", "", "--runs", "1", "--scale", "0.01", "--no-bounds"),
)


@pytest.fixture(autouse=True)
def _place_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab that other tests share may be running."""
    monkeypatch.setenv(LAB_VARIABLE, "8")


def loop_devices() -> set[str]:
    """The files behind them that are a lab's or a bench's volumes."""
    behind = set()
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(FileNotFoundError):  # cleared since it was listed
            behind.add(file.read_text())
    return {file for file in behind if file.startswith(str(Places().state / "volumes"))}


def test_killed_it_leaves_nothing_that_runs(tmp_path: Path) -> None:
    before = loop_devices()
    with subprocess.Popen(
        [*_COMMAND, "--output", str(tmp_path)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as bench:
        assert bench.stdout is not None
        for line in bench.stdout:
            if "postern boots" in line:  # with its volume mounted
                break
        (inside,) = Path(f"/proc/{bench.pid}/task/{bench.pid}/children").read_text().split()
        ended = os.pidfd_open(int(inside))
        bench.send_signal(signal.SIGKILL)
    assert select.select([ended], [], [], 30)[0]
    os.close(ended)
    deadline = time.monotonic() + 30
    while loop_devices() - before:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_every_message_is_delivered_once_and_signed(tmp_path: Path) -> None:
    done = subprocess.run(
        [*_COMMAND, "--output", str(tmp_path)],
        cwd=PROJECT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    measured = Results.read(tmp_path / "results.json").workloads["many-0ms"]
    assert measured.contenders == ["postern", "postfix"]
    for sample in measured.samples:
        assert sample.exact, sample
        assert sample.messages == sample.accepted == sample.verified == 30
        assert min(sample.cpu_per_message(who) for who in ("mta", "signer", "source", "sink")) > 0
    assert "| many-0ms | postern |" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "throughput.png").stat().st_size > 1000
