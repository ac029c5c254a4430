"""The SSM agent's part in Run Command, done from outside: the package in the lab is a stand-in.

As the agent does it (agent/plugins/runscript and agent/executers in its sources), the commands
become a file in its directory, which ``sh -c`` runs as root, so that a first line ``#!/bin/bash``
counts. They have the environment of a system service, which has no HOME, no standard input, and
``/usr/bin`` for working directory. What takes too long is killed with its process group; its exit
status is 137.
"""

import subprocess
import tempfile
from dataclasses import dataclass
from typing import BinaryIO

from lab.container import Container, ContainerError

UNIT = "amazon-ssm-agent.service"

# Whoever asks waits for the answer, so a machine that hangs counts as one without an agent.
_ANSWER_SECONDS = 5.0
# Beyond the command's own time, which timeout(1) keeps inside the machine.
_GRACE_SECONDS = 30.0

_DIRECTORY = (
    "/var/lib/amazon/ssm/{instance_id}/document/orchestration/{command_id}"
    "/awsrunShellScript/0.awsrunShellScript"
)
# The script comes on standard input. timeout(1) with KILL ends as the shell says it of its child:
# 128 + 9.
_RUN = """\
install -D --mode=0700 /dev/stdin "$1/_script.sh" && cd "$2" || exit 1
exec env --ignore-environment \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin LANG=C.UTF-8 \
    AWS_SSM_INSTANCE_ID="$4" AWS_SSM_REGION_NAME="$5" \
    timeout --signal=KILL "$3" sh -c "$1/_script.sh" </dev/null
"""


@dataclass(frozen=True, kw_only=True)
class ScriptResult:
    """How a script ended: its exit status, and the beginning of what it printed."""

    exit_status: int
    stdout: str
    stderr: str


def answers(container: Container) -> bool:
    """Whether the machine runs and its agent's unit is active."""
    try:
        asked = container.run(["systemctl", "is-active", "--quiet", UNIT], timeout=_ANSWER_SECONDS)
    except (ContainerError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def run_script(
    container: Container,
    *,
    script: str,
    command_id: str,
    region: str,
    working_directory: str,
    timeout_seconds: int,
    characters: int,
) -> ScriptResult:
    """Run a script to its end, or to the machine's; `characters` is how much output is kept.

    Raises:
        ContainerError: the machine does not run.
    """
    directory = _DIRECTORY.format(instance_id=container.name, command_id=command_id)
    command = container.enter_command(
        [
            *("sh", "-c", _RUN, "sh", directory, working_directory, str(timeout_seconds)),
            *(container.name, region),
        ]
    )
    # In files, as of the agent: a program that the script left behind may keep a pipe open.
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        given.write(script.encode())
        given.seek(0)
        process = subprocess.Popen(command, stdin=given, stdout=stdout, stderr=stderr)
        try:
            status = process.wait(timeout_seconds + _GRACE_SECONDS)
        except subprocess.TimeoutExpired:  # a machine that is frozen
            process.kill()
            status = process.wait()
        return ScriptResult(
            exit_status=status if status >= 0 else 128 - status,
            stdout=_beginning(stdout, characters),
            stderr=_beginning(stderr, characters),
        )


def _beginning(file: BinaryIO, characters: int) -> str:
    file.seek(0)
    return file.read(4 * characters).decode(errors="replace")[:characters]
