"""Run Command asks the lab's machines, and answers as AWS does; here the machines are played."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from lab.cloud.cloud import Cloud
from lab.control import ControlServer, Handler
from lab.places import Places
from tests.lab.cloud.conftest import running_cloud
from tests.lab.waiting import eventually

pytestmark = pytest.mark.lab


class Machines:
    """Stands for the supervisor and its machines."""

    def __init__(self) -> None:
        self.answering: set[str] = set()
        self.asked: list[dict[str, Any]] = []
        self.result: dict[str, Any] = {}
        self.may_end = threading.Event()

    def run_script(self, **arguments: Any) -> dict[str, Any]:
        self.asked.append(arguments)
        self.may_end.wait()
        if not self.result:
            raise RuntimeError("the machine is gone")
        return self.result


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Places(state=tmp_path_factory.mktemp("state")).control_socket


@pytest.fixture(scope="module")
def cloud(socket: Path) -> Iterator[Cloud]:
    with running_cloud(socket.parent) as cloud:
        yield cloud


@pytest.fixture
def machines(socket: Path) -> Iterator[Machines]:
    machines = Machines()
    operations: dict[str, Handler] = {
        "answering_agents": lambda: sorted(machines.answering),
        "run_script": machines.run_script,
    }
    with ControlServer(path=socket, operations=operations) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield machines
        machines.may_end.set()
        server.shutdown()


@pytest.fixture
def ssm(cloud: Cloud) -> Any:
    return cloud.client("ssm")


@pytest.fixture
def instance_id(cloud: Cloud, machines: Machines) -> str:
    """A running instance whose agent answers."""
    ec2 = cloud.client("ec2")
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    instance = ec2.run_instances(
        ImageId=cloud.client("ssm").get_parameter(
            Name="/aws/service/debian/release/13/latest/amd64"
        )["Parameter"]["Value"],
        InstanceType="t3.small",
        SubnetId=subnet,
        MinCount=1,
        MaxCount=1,
    )["Instances"][0]["InstanceId"]
    ec2.get_waiter("instance_running").wait(InstanceIds=[instance], WaiterConfig={"Delay": 1})
    machines.answering.add(instance)
    return str(instance)


def send(ssm: Any, instance_id: str, **parameters: list[str]) -> str:
    parameters = {"commands": ["id -un"]} | parameters
    answer = ssm.send_command(
        InstanceIds=[instance_id], DocumentName="AWS-RunShellScript", Parameters=parameters
    )
    return str(answer["Command"]["CommandId"])


def invocation(ssm: Any, command_id: str, instance_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = ssm.get_command_invocation(
        CommandId=command_id, InstanceId=instance_id
    )
    return answer


def ended(ssm: Any, command_id: str, instance_id: str) -> dict[str, Any]:
    def status() -> str:
        return str(invocation(ssm, command_id, instance_id)["Status"])

    eventually(lambda: status() not in ("Pending", "InProgress"))
    return invocation(ssm, command_id, instance_id)


def outcome(ssm: Any, machines: Machines, instance_id: str, **result: Any) -> dict[str, Any]:
    """What is told of a command that ended so."""
    machines.result = {"exit_status": 0, "stdout": "", "stderr": ""} | result
    machines.may_end.set()
    return ended(ssm, send(ssm, instance_id), instance_id)


def test_a_script_reaches_the_machine_as_the_document_says(
    ssm: Any, machines: Machines, instance_id: str
) -> None:
    machines.result = {"exit_status": 0, "stdout": "root\n", "stderr": ""}
    machines.may_end.set()
    command_id = send(
        ssm,
        instance_id,
        commands=["#!/bin/bash", "id -un"],
        executionTimeout=["45"],
        workingDirectory=["/var/spool"],
    )
    told = ended(ssm, command_id, instance_id)

    (asked,) = machines.asked
    assert asked["instance_id"] == instance_id
    assert asked["command_id"] == command_id
    assert asked["script"] == "#!/bin/bash\nid -un\n"
    assert asked["timeout_seconds"] == 45
    assert asked["working_directory"] == "/var/spool"
    assert (told["Status"], told["StatusDetails"]) == ("Success", "Success")
    assert (told["ResponseCode"], told["StandardOutputContent"]) == (0, "root\n")


def test_a_script_may_take_an_hour_unless_told_otherwise(
    ssm: Any, machines: Machines, instance_id: str
) -> None:
    outcome(ssm, machines, instance_id)
    assert machines.asked[0]["timeout_seconds"] == 3600
    assert machines.asked[0]["working_directory"] == "/usr/bin"


def test_failure_has_the_script_s_status_and_the_agent_s_last_line(
    ssm: Any, machines: Machines, instance_id: str
) -> None:
    told = outcome(ssm, machines, instance_id, exit_status=7, stderr="no such queue\n")

    assert (told["Status"], told["ResponseCode"]) == ("Failed", 7)
    assert told["StandardErrorContent"] == ("no such queue\nfailed to run commands: exit status 7")
    (command,) = ssm.list_commands(CommandId=told["CommandId"])["Commands"]
    assert (command["Status"], command["ErrorCount"]) == ("Failed", 1)


def test_what_the_agent_killed_timed_out(ssm: Any, machines: Machines, instance_id: str) -> None:
    told = outcome(ssm, machines, instance_id, exit_status=137, stdout="so far\n")

    assert (told["Status"], told["ResponseCode"]) == ("TimedOut", 137)
    assert told["StatusDetails"] == "ExecutionTimedOut"
    assert told["StandardOutputContent"] == "so far\n"
    (command,) = ssm.list_commands(CommandId=told["CommandId"])["Commands"]
    assert (command["Status"], command["ErrorCount"]) == ("TimedOut", 1)


def test_only_the_beginning_of_the_output_is_kept(
    ssm: Any, machines: Machines, instance_id: str
) -> None:
    told = outcome(ssm, machines, instance_id, stdout="o" * 24_001, stderr="e" * 8_001)

    assert len(told["StandardOutputContent"]) == 24_000
    assert len(told["StandardErrorContent"]) == 8_000
    assert told["StandardOutputContent"].endswith("oo--output truncated--")
    assert outcome(ssm, machines, instance_id, stdout="o" * 24_000)[
        "StandardOutputContent"
    ].endswith("oooo")


def test_a_machine_that_dies_meanwhile_hangs_nothing(
    ssm: Any, machines: Machines, instance_id: str
) -> None:
    command_id = send(ssm, instance_id)
    eventually(lambda: machines.asked)
    began = time.monotonic()
    assert invocation(ssm, command_id, instance_id)["Status"] == "InProgress"
    assert time.monotonic() - began < 5
    machines.may_end.set()  # with no result
    told = ended(ssm, command_id, instance_id)

    assert (told["Status"], told["ResponseCode"]) == ("TimedOut", -1)


def test_without_its_agent_an_instance_takes_no_command_and_has_lost_connection(
    ssm: Any, machines: Machines, instance_id: str
) -> None:
    def pings() -> dict[str, str]:
        listed = ssm.describe_instance_information(
            Filters=[{"Key": "InstanceIds", "Values": [instance_id]}]
        )["InstanceInformationList"]
        return {item["InstanceId"]: item["PingStatus"] for item in listed}

    assert pings() == {instance_id: "Online"}
    machines.answering.clear()
    assert pings() == {instance_id: "ConnectionLost"}
    with pytest.raises(ssm.exceptions.InvalidInstanceId):
        send(ssm, instance_id)
    assert machines.asked == []


def test_an_instance_that_never_had_an_agent_is_not_listed(ssm: Any, machines: Machines) -> None:
    machines.answering.add("i-00000000000000000")
    listed = ssm.describe_instance_information(
        Filters=[{"Key": "InstanceIds", "Values": ["i-00000000000000000"]}]
    )
    assert listed["InstanceInformationList"] == []
    with pytest.raises(ssm.exceptions.InvalidInstanceId):
        send(ssm, "i-00000000000000000")


def test_only_what_the_lab_can_run_is_taken(ssm: Any, instance_id: str) -> None:
    with pytest.raises(ssm.exceptions.InvalidDocument):
        ssm.send_command(InstanceIds=[instance_id], DocumentName="AWS-RunPatchBaseline")
    with pytest.raises(ssm.exceptions.InvalidParameters, match="timeout"):
        send(ssm, instance_id, timeout=["5"])


def test_nobody_runs_commands_without_permission(
    cloud: Cloud, machines: Machines, instance_id: str
) -> None:
    iam = cloud.client("iam")
    iam.create_user(UserName="reader")
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    reader = boto3.client(
        "ssm",
        endpoint_url=cloud.endpoint,
        region_name=cloud.region,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    with pytest.raises(ClientError, match="AccessDenied"):
        send(reader, instance_id)
    assert machines.asked == []
