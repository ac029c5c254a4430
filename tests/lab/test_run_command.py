"""Run Command on the real host: as the agent runs a script there, and not without the agent."""

import time
import uuid
from typing import Any

import pytest

from lab.lab import Lab

pytestmark = pytest.mark.lab


def run_command(lab: Lab, script: str, **parameters: list[str]) -> dict[str, Any]:
    """How a script ended on the only host, by Run Command."""
    ssm = lab.cloud.client("ssm")
    (instance_id,) = lab.instance_ids
    command_id = ssm.send_command(
        InstanceIds=[instance_id],
        DocumentName="AWS-RunShellScript",
        Parameters={"commands": script.splitlines(), **parameters},
    )["Command"]["CommandId"]
    while True:
        answer: dict[str, Any] = ssm.get_command_invocation(
            CommandId=command_id, InstanceId=instance_id
        )
        if answer["Status"] not in ("Pending", "InProgress"):
            return answer
        time.sleep(0.1)


def test_a_script_is_root_on_the_host_with_a_service_s_environment(lab: Lab) -> None:
    told = run_command(lab, "id -un\nhostname\npwd\necho ${HOME-none}\ncat\nexit 4")

    assert (told["Status"], told["ResponseCode"]) == ("Failed", 4)
    domain = lab.environment.sending_domain
    assert told["StandardOutputContent"].split() == ["root", domain, "/usr/bin", "none"]


def test_a_script_follows_its_first_line_and_no_one_waits_for_its_background(lab: Lab) -> None:
    began = time.monotonic()
    told = run_command(lab, "#!/bin/bash\nsleep 300 &\necho ${BASH_VERSION:+bash}")

    assert (told["Status"], told["StandardOutputContent"]) == ("Success", "bash\n")
    assert time.monotonic() - began < 120
    lab.run("pkill", "--full", "^sleep 300$")


def test_what_takes_too_long_is_killed(lab: Lab) -> None:
    marker = f"30{uuid.uuid4().int % 10**6:06}"
    told = run_command(lab, f"echo begun\nsleep {marker}\necho over", executionTimeout=["2"])

    assert (told["Status"], told["ResponseCode"]) == ("TimedOut", 137)
    assert told["StandardOutputContent"] == "begun\n"
    assert lab.run("pgrep", "--full", f"sleep {marker}").returncode == 1


def test_nothing_runs_without_the_host_s_agent(lab: Lab) -> None:
    ssm = lab.cloud.client("ssm")
    lab.run("systemctl", "stop", "amazon-ssm-agent")
    try:
        with pytest.raises(ssm.exceptions.InvalidInstanceId):
            run_command(lab, "true")
        (told,) = ssm.describe_instance_information()["InstanceInformationList"]
        assert told["PingStatus"] == "ConnectionLost"
    finally:
        lab.run("systemctl", "start", "amazon-ssm-agent")
    assert run_command(lab, "true")["Status"] == "Success"
