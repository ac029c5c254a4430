"""Programs on mail hosts, run as root through Systems Manager's Run Command.

What a command says and is told stays in Systems Manager's history for 30 days, and its parameters
in CloudTrail: no secret goes this way.
"""

from __future__ import annotations

import base64
import gzip
import json
import shlex
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ops.deployment import CannotTell, Deployment

# GetCommandInvocation gives no more of what a command printed.
OUTPUT_CHARACTERS = 24_000
POLL_SECONDS = 0.5
# For an agent that is slow to fetch its command, beyond the command's own time.
DELIVERY_SECONDS = 60
_ENDED = frozenset({"Success", "Failed", "TimedOut", "Cancelled"})
# Compressed, as 24,000 characters are soon full. sh has no pipefail everywhere.
_PACKED = 'set -o pipefail; "$@" | gzip -9 | base64 -w0'


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a program printed, and its exit status."""

    exit_status: int
    stdout: str
    stderr: str


def run(
    deployment: Deployment, instance_id: str, argv: Sequence[str], *, seconds: int = 60
) -> Output:
    """Run a program on a host and wait for its end.

    Raises:
        CannotTell: the host's agent does not answer, the program did not end within `seconds`, or
            it printed more than fits.
    """
    command = shlex.join(["/bin/bash", "-c", _PACKED, "bash", *argv])
    try:
        command_id = deployment.client("ssm").send_command(
            InstanceIds=[instance_id],
            DocumentName="AWS-RunShellScript",
            Comment=f"postern: {argv[0].rpartition('/')[2]} {' '.join(argv[1:2])}".strip(),
            TimeoutSeconds=max(30, DELIVERY_SECONDS),
            Parameters={"commands": [command], "executionTimeout": [str(seconds)]},
        )["Command"]["CommandId"]
        invocation = _wait(deployment, command_id, instance_id, seconds=seconds)
    except deployment.client("ssm").exceptions.InvalidInstanceId as error:
        raise CannotTell(
            f"Systems Manager does not reach {instance_id}: it is not running, or its agent does "
            "not answer. See its console output (aws ec2 get-console-output --instance-id "
            f"{instance_id}); terminating the instance brings a new one with the same queue."
        ) from error
    except (BotoCoreError, ClientError) as error:
        raise CannotTell(f"Run Command could not be asked: {error}") from error
    if invocation["Status"] not in ("Success", "Failed"):
        raise CannotTell(
            f"{argv[0]} on {instance_id}: {invocation['StatusDetails']} after {seconds} s"
        )
    return _unpacked(invocation, instance_id)


def run_json(
    deployment: Deployment, instance_id: str, argv: Sequence[str], *, seconds: int = 60
) -> dict[str, Any]:
    """The JSON object that a host's program printed.

    Raises:
        CannotTell: as `run`, or the program failed; the text has its own words.
    """
    output = run(deployment, instance_id, argv, seconds=seconds)
    if output.exit_status:
        raise CannotTell(
            f"{shlex.join(argv)} on {instance_id} ended with status {output.exit_status}: "
            f"{output.stderr.strip() or output.stdout.strip()}"
        )
    try:
        answer = json.loads(output.stdout)
    except json.JSONDecodeError as error:
        raise CannotTell(f"{shlex.join(argv)} on {instance_id} printed no JSON: {error}") from error
    if not isinstance(answer, dict):
        raise CannotTell(f"{shlex.join(argv)} on {instance_id} printed no JSON object")
    return answer


def _wait(
    deployment: Deployment, command_id: str, instance_id: str, *, seconds: int
) -> dict[str, Any]:
    ssm = deployment.client("ssm")
    deadline = time.monotonic() + seconds + DELIVERY_SECONDS
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        try:
            invocation: dict[str, Any] = ssm.get_command_invocation(
                CommandId=command_id, InstanceId=instance_id
            )
        except ssm.exceptions.InvocationDoesNotExist:  # not known everywhere at once
            continue
        if invocation["Status"] in _ENDED:
            return invocation
    raise CannotTell(
        f"{instance_id} did not take or end its command within {seconds + DELIVERY_SECONDS} s. Its "
        "agent may be down: see its console output, or terminate it, which brings a new one."
    )


def _unpacked(invocation: dict[str, Any], instance_id: str) -> Output:
    packed = invocation["StandardOutputContent"]
    if len(packed) >= OUTPUT_CHARACTERS:
        raise CannotTell(f"{instance_id} printed more than Run Command passes on: ask for less.")
    try:
        stdout = gzip.decompress(base64.b64decode(packed)).decode(errors="replace")
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise CannotTell(
            f"{instance_id} printed what cannot be unpacked ({error}); it also said: "
            f"{invocation['StandardErrorContent']}"
        ) from error
    return Output(
        exit_status=invocation["ResponseCode"],
        stdout=stdout,
        stderr=invocation["StandardErrorContent"],
    )
