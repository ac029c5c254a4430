"""`postern addresses` on an emulated AWS: what it lists, what it releases, what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.cloud.cloud import Cloud
from tests.lab.cloud.stacks import Stack, network
from tests.lab.waiting import eventually

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[3]
ZONE = "Z0TESTRELEASING"
NAME = "mail.released.example"
TAGS = [{"Key": "postern:environment", "Value": "releasing"}]
# An address of the environment's with a NAT gateway on it.
HELD_ADDRESS = network(
    Address={"Type": "AWS::EC2::EIP", "Properties": {"Domain": "vpc", "Tags": TAGS}},
    Gateway={
        "Type": "AWS::EC2::NatGateway",
        "Properties": {
            "SubnetId": {"Ref": "Subnet"},
            "AllocationId": {"Fn::GetAtt": ["Address", "AllocationId"]},
        },
    },
)

Postern = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def postern(cloud: Cloud, tmp_path: Path) -> Postern:
    """`postern addresses ...` of an environment `releasing`: its exit status and its JSON."""
    settings = (ROOT / "environments/lab.toml").read_text(encoding="utf-8")
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments/releasing.toml").write_text(settings, encoding="utf-8")

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ops", "addresses", *arguments),
                *("--environment", "releasing", "--json"),
            ],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "AWS_ENDPOINT_URL": cloud.endpoint,
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            },
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def left_over(cloud: Cloud) -> dict[str, str]:
    """An address with the environment's tag and a PTR record that no stack has."""
    ec2 = cloud.client("ec2")
    address: dict[str, str] = ec2.allocate_address(
        Domain="vpc", TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": TAGS}]
    )
    cloud.create_hosted_zone(hosted_zone_id=ZONE, name="released.example")
    record = {
        "Name": f"{NAME}.",
        "Type": "A",
        "TTL": 60,
        "ResourceRecords": [{"Value": address["PublicIp"]}],
    }
    cloud.client("route53").change_resource_record_sets(
        HostedZoneId=ZONE,
        ChangeBatch={"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]},
    )
    allocation_id = address["AllocationId"]
    ec2.modify_address_attribute(AllocationId=allocation_id, DomainName=NAME)
    eventually(
        lambda: ec2.describe_addresses_attribute(
            AllocationIds=[allocation_id], Attribute="domain-name"
        )["Addresses"][0].get("PtrRecord")
    )
    return address


@pytest.fixture(scope="module")
def in_use(cloud: Cloud) -> Iterator[str]:
    """An address of the environment's stack, with a NAT gateway."""
    stack = Stack(cloud, "postern-releasing-SendingIdentity")
    stack.create(HELD_ADDRESS)
    assert stack.outcome() == "CREATE_COMPLETE"
    yield stack.physical_id("Address")
    stack.delete()


def test_a_left_over_address_is_told_and_released_with_its_reverse_dns(
    cloud: Cloud, postern: Postern, left_over: dict[str, str], in_use: str
) -> None:
    address = left_over["PublicIp"]
    status, told = postern()
    known = {found["address"]: found for found in told["addresses"]}
    assert status == 1
    assert known[address]["reverse_dns"] == NAME
    assert (known[address]["in_stack"], known[in_use]["in_stack"]) == (False, True)
    assert known[in_use]["held_by"].startswith("nat-")

    status, told = postern("release", address)
    assert (status, "--yes" in told["error"]) == (1, True)
    status, told = postern("release", address, "--yes")
    assert (status, told["released"]["address"]) == (0, address)

    remaining = [a["PublicIp"] for a in cloud.client("ec2").describe_addresses()["Addresses"]]
    assert address not in remaining
    assert in_use in remaining
    status, told = postern("release", address, "--yes")
    assert (status, "released already" in told["error"]) == (1, True)


def test_an_address_in_use_is_refused(cloud: Cloud, postern: Postern, in_use: str) -> None:
    status, told = postern("release", in_use, "--yes")

    assert (status, "postern-releasing-SendingIdentity" in told["error"]) == (1, True)
    remaining = [a["PublicIp"] for a in cloud.client("ec2").describe_addresses()["Addresses"]]
    assert in_use in remaining


def test_an_address_that_something_holds_is_refused_without_a_stack(
    cloud: Cloud, postern: Postern
) -> None:
    stack = Stack(cloud, "somebody-elses")
    stack.create(HELD_ADDRESS)
    assert stack.outcome() == "CREATE_COMPLETE"
    status, told = postern("release", stack.physical_id("Address"), "--yes")

    assert (status, "associated with nat-" in told["error"]) == (1, True)
    assert stack.delete() == "DELETE_COMPLETE"
