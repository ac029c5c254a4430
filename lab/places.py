"""Where the lab keeps its things on this machine."""

from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Places:
    """The lab's folders; every one is created on first use.

    ``state`` belongs to one run and is emptied when the next one starts. ``cache`` holds the Debian
    images and the package mirror, keyed by what they are made from, and serves every clone.
    ``received`` holds what the receivers got, and outlives the run for the reader.
    """

    state: Path = Path("/var/lib/postern-lab")
    cache: Path = Path("/var/cache/postern")
    received: Path = PROJECT / ".lab" / "received"
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
