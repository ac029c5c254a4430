"""The lab itself: one of a name at a time, and gone without a trace however it ends.

conftest.py puts this file last, because it kills the lab that the others use.
"""

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from lab.lab import Lab
from lab.places import PROJECT, lab_name
from lab.steps import Steps
from tests.lab.waiting import eventually

pytestmark = pytest.mark.lab


def test_a_second_lab_is_refused_while_one_runs(lab: Lab) -> None:
    log = lab.places.log.read_text()

    second = subprocess.run(
        [sys.executable, "-m", "ops", "lab", "up"],
        cwd=PROJECT,
        check=False,
        capture_output=True,
        text=True,
    )

    assert second.returncode == 1
    assert "Another lab is running" in " ".join(second.stderr.split())
    assert lab.places.log.read_text().startswith(log)


def test_a_killed_lab_leaves_no_process_mount_namespace_or_loop_device(lab: Lab) -> None:
    state = str(lab.places.state)
    processes = _descendants(lab.supervisor)
    assert len(processes) > 20
    assert state in _loop_devices()
    named_before = _named_namespaces()
    mounts = Path(f"/proc/{lab.supervisor}/ns/mnt").readlink()
    assert state in Path(f"/proc/{lab.supervisor}/mounts").read_text()

    lab.kill()

    eventually(lambda: not any(map(_is_alive, processes)))
    eventually(lambda: state not in _loop_devices())
    # Its mounts were in a namespace of their own, which nobody is in any more.
    eventually(lambda: mounts not in _mount_namespaces())
    assert state not in Path("/proc/mounts").read_text()
    assert _named_namespaces() == named_before


def test_nothing_of_a_killed_lab_stops_the_next(lab: Lab) -> None:
    lab.kill()

    successor = Lab.start(steps=Steps(Console()), keep=False)
    successor.end()

    # os.walk does not mind what vanishes meanwhile.
    cgroups = [name for _, names, _ in os.walk("/sys/fs/cgroup") for name in names]
    assert not [name for name in cgroups if name.startswith(f"{lab_name()}.")]


def _named_namespaces() -> set[str]:
    """The network namespaces that the machine, outside the lab, has names for."""
    return {path.name for path in Path("/run/netns").iterdir()}


def _mount_namespaces() -> set[Path]:
    found = set()
    for process in Path("/proc").iterdir():
        with suppress(OSError):  # it ended while it was looked at, or is no process at all
            found.add((process / "ns" / "mnt").readlink())
    return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_an_interrupted_command_stops_the_next(lab: Lab, how: signal.Signals) -> None:
    lab.kill()
    command = subprocess.Popen(
        [sys.executable, "-m", "ops", "lab", "try"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert command.stdout is not None
    for line in command.stdout:
        if line.startswith("✓ Internet"):  # everything has started; the deployment begins
            break
    started = _descendants(command.pid)
    assert len(started) > 10

    command.send_signal(how)
    command.wait(timeout=180)  # it gives the lab a minute to end in order

    eventually(lambda: not any(map(_is_alive, started)))
    with lab.places.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError while a lab runs


def _descendants(pid: int) -> set[int]:
    found = {pid}
    # Each thread has its own. Whatever ends meanwhile has none, and takes its directory along.
    with suppress(OSError):
        for thread in list(Path(f"/proc/{pid}/task").iterdir()):
            with suppress(OSError):
                for child in map(int, (thread / "children").read_text().split()):
                    found |= _descendants(child)
    return found


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _loop_devices() -> str:
    return subprocess.run(["losetup", "--all"], check=True, capture_output=True, text=True).stdout
