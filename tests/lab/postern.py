"""The operator's commands as these tests run them: on the laptop, as JSON."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.lab import Lab
from lab.places import PROJECT


def postern(lab: Lab, *arguments: str, folder: Path = PROJECT) -> tuple[int, dict[str, Any]]:
    """`postern ARGUMENTS --environment lab --json`: its exit status, and what it told.

    `folder` is where the operator stands: its environments/ has the settings.
    """
    program = Path(sys.executable).with_name("postern")
    options = ("--environment", lab.environment.name, "--json")
    done = subprocess.run(
        lab.operator_command(str(program), *arguments, *options),
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)
