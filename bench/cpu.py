"""CPU time of containers, of the units in them, and of this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lab.places import lab_name


def unified_hierarchy() -> Path:
    """Where cgroup v2 is mounted, alone or beside v1.

    Raises:
        LookupError: nowhere.
    """
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, filesystem = line.partition(" - ")
        if filesystem.split(" ", 1)[0] == "cgroup2":
            return Path(mount.split()[4])
    raise LookupError("This machine has no cgroup v2, which counts CPU time.")


def seconds_of(cgroup: Path) -> float:
    """CPU seconds of everything that ever ran in a cgroup and below; 0 when it is not there."""
    try:
        text = (cgroup / "cpu.stat").read_text()
    except FileNotFoundError:
        return 0.0
    return int(text.split("usage_usec ", 1)[1].split(None, 1)[0]) / 1e6


def seconds_of_units(cgroup: Path, units: Iterable[str]) -> float:
    """CPU seconds of these systemd units, wherever below `cgroup` they are."""
    return sum(seconds_of(found) for unit in units for found in cgroup.glob(f"**/{unit}"))


@contextmanager
def own_cgroup(name: str) -> Iterator[Path]:
    """A cgroup (v2) beside the containers', for programs that are counted by themselves."""
    path = next(
        line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"
    )
    # Called as the containers' are, so that what a killed bench leaves is swept with theirs.
    cgroup = unified_hierarchy() / path.lstrip("/") / f"{lab_name()}.{name}"
    cgroup.mkdir(exist_ok=True)
    try:
        yield cgroup
    finally:
        for _ in range(100):
            with suppress(OSError):  # its last process is just ending
                cgroup.rmdir()
                break
            time.sleep(0.05)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """CPU seconds of all of this machine's processors since it booted."""

    busy: float
    total: float

    @classmethod
    def now(cls) -> Machine:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        user, nice, system, idle, iowait, irq, softirq, steal = (
            int(field) / os.sysconf("SC_CLK_TCK") for field in fields
        )
        busy = user + nice + system + irq + softirq
        return cls(busy=busy, total=busy + idle + iowait + steal)
