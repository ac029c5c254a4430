"""`postern` as an operator runs it, on the lab's laptop."""

import json
import subprocess
import sys
from typing import Any

from lab.lab import Lab
from lab.places import PROJECT


def postern(lab: Lab, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run `postern ARGUMENTS --environment lab`; its exit status is the caller's to judge."""
    return subprocess.run(
        lab.operator_command(
            sys.executable, "-m", "ops", *arguments, "--environment", lab.environment.name
        ),
        cwd=PROJECT,
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def postern_json(lab: Lab, *arguments: str, timeout: float = 300) -> tuple[int, Any]:
    """The exit status, and the JSON document on standard output."""
    done = postern(lab, *arguments, "--json", timeout=timeout)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)
