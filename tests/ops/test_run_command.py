"""Run Command: what a program printed arrives whole, and silence is never taken for success."""

import base64
import gzip
import subprocess
from typing import Any

import boto3
import pytest

from ops import run_command
from ops.deployment import CannotTell, Deployment
from ops.run_command import run, run_json
from stacks.environment import load
from tests.stacks.conftest import ROOT


class Systems:
    """Systems Manager, with a machine that really runs what it is sent."""

    exceptions = boto3.client("ssm", region_name="us-east-1").exceptions

    def __init__(self, **invocation: Any) -> None:
        self.invocation = invocation
        self.sent: dict[str, Any] = {}

    def send_command(self, **arguments: Any) -> dict[str, Any]:
        if arguments["InstanceIds"] == ["i-gone"]:
            raise self.exceptions.InvalidInstanceId({}, "SendCommand")
        self.sent = arguments
        return {"Command": {"CommandId": "c"}}

    def get_command_invocation(self, **_: Any) -> dict[str, Any]:
        (command,) = self.sent["Parameters"]["commands"]
        done = subprocess.run(["/bin/sh", "-c", command], check=False, capture_output=True)
        return {
            "Status": "Failed" if done.returncode else "Success",
            "StatusDetails": "",
            "ResponseCode": done.returncode,
            "StandardOutputContent": done.stdout.decode()[: run_command.OUTPUT_CHARACTERS],
            "StandardErrorContent": done.stderr.decode(),
            **self.invocation,
        }


def deployment(systems: Systems) -> Deployment:
    deployed = Deployment(load(ROOT / "environments" / "example.toml"))
    deployed._clients["ssm"] = systems
    return deployed


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_command, "POLL_SECONDS", 0)


def test_arguments_and_output_pass_unchanged() -> None:
    words = ["it's", 'a "word"', "$HOME", "é\n"]
    output = run(deployment(Systems()), "i-1", ["printf", "%s|", *words])
    assert output.stdout == 'it\'s|a "word"|$HOME|é\n|'
    assert output.exit_status == 0


def test_a_program_that_fails_is_not_hidden_by_the_packing() -> None:
    output = run(deployment(Systems()), "i-1", ["bash", "-c", "echo out; echo err >&2; exit 3"])
    assert (output.exit_status, output.stdout, output.stderr) == (3, "out\n", "err\n")
    with pytest.raises(CannotTell, match="ended with status 3: err"):
        run_json(deployment(Systems()), "i-1", ["bash", "-c", "echo err >&2; exit 3"])


def test_more_output_than_run_command_passes_on_fits_compressed() -> None:
    answer = run_json(
        deployment(Systems()),
        "i-1",
        ["python3", "-c", "import json; print(json.dumps({'lines': ['x' * 70] * 3000}))"],
    )
    assert len(answer["lines"]) == 3000


def test_output_that_was_cut_off_is_said_to_be() -> None:
    noise = ["head", "--bytes=40000", "/dev/urandom"]
    with pytest.raises(CannotTell, match="ask for less"):
        run(deployment(Systems()), "i-1", noise)


@pytest.mark.parametrize("status", ["TimedOut", "Cancelled"])
def test_a_command_that_did_not_end_told_nothing(status: str) -> None:
    systems = Systems(Status=status, StatusDetails=status)
    with pytest.raises(CannotTell, match=f"i-1: {status} after 60 s"):
        run(deployment(systems), "i-1", ["true"])


def test_a_host_that_is_gone_or_without_agent_is_named() -> None:
    with pytest.raises(CannotTell, match="does not reach i-gone"):
        run(deployment(Systems()), "i-gone", ["true"])


def test_what_is_no_json_is_not_taken_for_an_answer() -> None:
    with pytest.raises(CannotTell, match="printed no JSON"):
        run_json(deployment(Systems()), "i-1", ["echo", "Hello"])
    with pytest.raises(CannotTell, match="printed no JSON object"):
        run_json(deployment(Systems()), "i-1", ["echo", "[]"])


@pytest.mark.parametrize(
    "packed", [gzip.compress(b"{}", mtime=0)[:-4], gzip.compress(b"", mtime=0)[:10] + b"\xff" * 9]
)
def test_what_was_garbled_on_the_way_is_not_taken_for_an_answer(packed: bytes) -> None:
    garbled = base64.b64encode(packed).decode()
    with pytest.raises(CannotTell, match="cannot be unpacked"):
        run(deployment(Systems(StandardOutputContent=garbled)), "i-1", ["true"])
