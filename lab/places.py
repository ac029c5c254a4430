"""Where the lab keeps its things on this machine."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lab.control import LabError

PROJECT = Path(__file__).resolve().parent.parent

# The environment variable with the number, from 1 to 8, of a lab beside the machine's usual one.
# Tests that run on several processors have one each.
LAB_VARIABLE: Final = "POSTERN_LAB"


def lab_number() -> int:
    """0 for the machine's usual lab; raises LabError for a number that no lab has."""
    text = os.environ.get(LAB_VARIABLE, "0")
    if text not in map(str, range(9)):
        raise LabError(f'{LAB_VARIABLE} is "{text}"; write a number from 1 to 8, or unset it')
    return int(text)


def _of_this_lab(place: str) -> str:
    return f"{place}-{number}" if (number := lab_number()) else place


def lab_name() -> str:
    """What no two labs of a machine share; their folders and cgroups are called so."""
    return _of_this_lab("postern-lab")


@dataclass(frozen=True, kw_only=True)
class Places:
    """The lab's folders; every one is created on first use.

    ``state`` belongs to one run and is emptied when the next one starts. ``cache`` holds the Debian
    images and the package mirror, keyed by what they are made from, and serves every clone.
    ``received`` holds what the receivers got, and outlives the run for the reader.
    """

    state: Path = field(default_factory=lambda: Path("/var/lib", lab_name()))
    cache: Path = Path("/var/cache/postern")
    received: Path = field(default_factory=lambda: PROJECT / ".lab" / _of_this_lab("received"))
    cdk: Path = PROJECT / "node_modules" / ".bin" / "cdk"
    emulator_python: Path = PROJECT / ".venv-cloud" / "bin" / "python"

    @property
    def control_socket(self) -> Path:
        return self.state / "control.sock"

    @property
    def laptop(self) -> Path:
        """The files of the operator's laptop, see `lab.laptop`."""
        return self.state / "laptop"

    @property
    def lock(self) -> Path:
        return self.state.with_suffix(".lock")

    @property
    def log(self) -> Path:
        """What the supervisor prints; next to the state, which the supervisor empties."""
        return self.state.with_suffix(".log")
