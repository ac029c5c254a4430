"""`postern` as an operator runs it, on the lab's laptop."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.lab import Lab
from lab.places import PROJECT


def postern(
    lab: Lab, *arguments: str, folder: Path = PROJECT, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run `postern ARGUMENTS --environment lab`; its exit status is the caller's to judge.

    `folder` is where the operator stands: its environments/ has the settings.
    """
    return subprocess.run(
        lab.operator_command(
            sys.executable, "-m", "ops", *arguments, "--environment", lab.environment.name
        ),
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def postern_json(
    lab: Lab, *arguments: str, folder: Path = PROJECT, timeout: float = 300
) -> tuple[int, Any]:
    """The exit status, and the JSON document on standard output."""
    done = postern(lab, *arguments, "--json", folder=folder, timeout=timeout)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)
