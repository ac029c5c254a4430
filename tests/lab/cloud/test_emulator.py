"""The emulated AWS answers like AWS where stacks and hosts look, and only to this machine."""

import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from lab.cloud.cloud import Cloud, CloudError
from lab.cloud.emulator.loopback import ExposureError, refuse_other_interfaces
from lab.cloud.listeners import exposed_addresses, listening_addresses
from tests.lab.cloud.stacks import Stack, network

pytestmark = pytest.mark.lab


def test_the_debian_image_of_a_public_parameter_can_be_described(cloud: Cloud) -> None:
    for architecture, expected in (("amd64", "x86_64"), ("arm64", "arm64")):
        name = f"/aws/service/debian/release/13/latest/{architecture}"
        image_id = cloud.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
        image = cloud.client("ec2").describe_images(ImageIds=[image_id])["Images"][0]

        assert image["Architecture"] == expected
        assert image["RootDeviceName"] == "/dev/xvda"


def test_references_have_the_values_that_aws_gives_them(cloud: Cloud) -> None:
    stack = Stack(cloud, "references")
    template = network(Secret={"Type": "AWS::SecretsManager::Secret", "Properties": {}})
    template["Outputs"] = {
        "Secret": {"Value": {"Ref": "Secret"}},
        "Cidr": {"Value": {"Fn::GetAtt": ["Vpc", "CidrBlock"]}},
    }
    stack.create(template)
    assert stack.outcome() == "CREATE_COMPLETE"
    outputs = {
        item["OutputKey"]: item["OutputValue"]
        for item in stack.cloudformation.describe_stacks(StackName="references")["Stacks"][0][
            "Outputs"
        ]
    }

    assert outputs["Secret"].startswith("arn:aws:secretsmanager:us-east-1:000000000000:secret:")
    assert outputs["Cidr"] == "10.9.0.0/24"
    with pytest.raises(ClientError, match="AWSCURRENT"):
        cloud.client("secretsmanager").get_secret_value(SecretId=outputs["Secret"])
    assert stack.delete() == "DELETE_COMPLETE"


def test_what_is_not_emulated_is_refused_by_name(cloud: Cloud) -> None:
    stack = Stack(cloud, "not-emulated")
    stack.create(
        network(
            Volume={
                "Type": "AWS::EC2::Volume",
                "Properties": {
                    "AvailabilityZone": "us-east-1a",
                    "Size": 1,
                    "OutpostArn": "arn:aws:outposts:us-east-1:000000000000:outpost/op-1",
                },
            }
        )
    )

    assert stack.outcome() == "ROLLBACK_COMPLETE"
    assert "The lab does not emulate OutpostArn of AWS::EC2::Volume." in stack.reasons()


@pytest.mark.parametrize(
    ("host", "path", "package"),
    [
        (
            "s3.us-east-1.amazonaws.com",
            "/amazon-ssm-us-east-1/latest/debian_amd64/amazon-ssm-agent.deb",
            "amazon-ssm-agent",
        ),
        (
            "amazoncloudwatch-agent-us-east-1.s3.us-east-1.amazonaws.com",
            "/debian/arm64/latest/amazon-cloudwatch-agent.deb",
            "amazon-cloudwatch-agent",
        ),
    ],
)
def test_agents_are_fetched_without_credentials(
    cloud: Cloud, tmp_path: Path, host: str, path: str, package: str
) -> None:
    request = urllib.request.Request(cloud.endpoint + path, headers={"Host": host})  # noqa: S310
    with urllib.request.urlopen(request) as response:  # noqa: S310
        (tmp_path / "agent.deb").write_bytes(response.read())
    fields = subprocess.run(
        ["dpkg-deb", "--field", tmp_path / "agent.deb", "Package", "Description"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert f"Package: {package}" in fields
    assert "Description: stand-in" in fields


@pytest.mark.parametrize(
    ("service", "operation"),
    [
        ("cloudformation", "list_stacks"),
        ("ec2", "describe_volumes"),
        ("logs", "describe_log_groups"),
        ("s3", "list_buckets"),
        ("secretsmanager", "list_secrets"),
        ("sts", "get_caller_identity"),
    ],
)
def test_each_service_answers_under_its_own_host_name(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, service: str, operation: str
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda _host, *arguments: resolve("127.0.0.1", *arguments)
    )
    client = boto3.client(
        service,
        endpoint_url=f"http://{service}.us-east-1.amazonaws.com:{cloud.endpoint.rpartition(':')[2]}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106
        config=Config(proxies={}),
    )

    assert getattr(client, operation)()["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_it_listens_on_loopback_only(cloud: Cloud) -> None:
    pid = cloud.pid
    assert listening_addresses(pid) == {cloud.endpoint.removeprefix("http://")}
    assert exposed_addresses(pid) == set()


def test_a_listener_on_another_interface_is_found() -> None:
    program = (
        "import socket, sys; s = socket.create_server(('0.0.0.0', 0)); print('up', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"{program}; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert [item.rpartition(":")[0] for item in exposed_addresses(process.pid)] == ["0.0.0.0"]  # noqa: S104


def test_the_emulator_refuses_to_listen_elsewhere() -> None:
    with socket.socket() as any_socket:
        refuse_other_interfaces("socket.bind", (any_socket, ("127.0.0.1", 0)))
        for address in (("0.0.0.0", 0), ("", 0), ("::", 0)):  # noqa: S104
            with pytest.raises(ExposureError):
                refuse_other_interfaces("socket.bind", (any_socket, address))


def test_an_emulator_that_does_not_start_shows_why(tmp_path: Path) -> None:
    cloud = Cloud(python=Path(sys.executable), state=tmp_path, cdk=Path("cdk"), progress=print)

    with pytest.raises(CloudError, match="No module named 'ministack'"):
        cloud.start()
