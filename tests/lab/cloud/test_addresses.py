"""Elastic IPs, their reverse DNS and the NAT gateways that hold them behave as on AWS."""

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab.cloud.cloud import Cloud
from tests.lab.cloud.stacks import Stack, network
from tests.lab.waiting import eventually

pytestmark = pytest.mark.lab

ZONE = "Z0TESTEXAMPLEORG"
NAME = "mail.example.org."


@pytest.fixture(scope="module")
def ec2(cloud: Cloud) -> Any:
    cloud.create_hosted_zone(hosted_zone_id=ZONE, name="example.org")
    return cloud.client("ec2")


def attribute(ec2: Any, allocation_id: str) -> dict[str, Any]:
    answer = ec2.describe_addresses_attribute(
        AllocationIds=[allocation_id], Attribute="domain-name"
    )
    found: dict[str, Any] = answer["Addresses"][0]
    return found


def point(cloud: Cloud, name: str, address: str) -> None:
    record = {
        "Name": name,
        "Type": "A",
        "TTL": 60,
        "ResourceRecords": [{"Value": address}],
    }
    cloud.client("route53").change_resource_record_sets(
        HostedZoneId=ZONE,
        ChangeBatch={"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]},
    )


def test_addresses_come_from_the_documentation_range(ec2: Any) -> None:
    addresses = [ec2.allocate_address(Domain="vpc")["PublicIp"] for _ in range(3)]

    assert len(set(addresses)) == 3
    for address in addresses:
        assert ipaddress.ip_address(address) in ipaddress.ip_network("203.0.113.0/24")
        assert not address.endswith((".0", ".1", ".255"))


def test_reverse_dns_is_pending_and_then_there(cloud: Cloud, ec2: Any) -> None:
    address = ec2.allocate_address(Domain="vpc")
    allocation_id = address["AllocationId"]
    point(cloud, NAME, address["PublicIp"])
    changed = ec2.modify_address_attribute(AllocationId=allocation_id, DomainName=NAME.strip("."))

    assert changed["Address"]["PtrRecordUpdate"]["Status"] == "PENDING"
    assert eventually(lambda: attribute(ec2, allocation_id).get("PtrRecord")) == NAME
    assert "PtrRecordUpdate" not in attribute(ec2, allocation_id)


def test_reverse_dns_is_refused_without_an_a_record(ec2: Any) -> None:
    address = ec2.allocate_address(Domain="vpc")
    allocation_id = address["AllocationId"]
    ec2.modify_address_attribute(AllocationId=allocation_id, DomainName="nowhere.example.org")

    def update() -> dict[str, str]:
        found: dict[str, str] = attribute(ec2, allocation_id)["PtrRecordUpdate"]
        return found

    eventually(lambda: update()["Status"] == "FAILED")
    assert address["PublicIp"] in update()["Reason"]
    assert "PtrRecord" not in attribute(ec2, allocation_id)


def test_an_address_with_a_ptr_record_is_not_released(
    cloud: Cloud,
    ec2: Any,
) -> None:
    address = ec2.allocate_address(Domain="vpc")
    allocation_id = address["AllocationId"]
    point(cloud, "ptr.example.org.", address["PublicIp"])
    ec2.modify_address_attribute(AllocationId=allocation_id, DomainName="ptr.example.org")
    eventually(lambda: attribute(ec2, allocation_id).get("PtrRecord"))

    with pytest.raises(ClientError, match=r"InvalidAddress\.PtrSet"):
        ec2.release_address(AllocationId=allocation_id)
    ec2.reset_address_attribute(AllocationId=allocation_id, Attribute="domain-name")
    eventually(lambda: "PtrRecord" not in attribute(ec2, allocation_id))
    ec2.release_address(AllocationId=allocation_id)


def test_a_nat_gateway_holds_the_address_it_was_given(cloud: Cloud, ec2: Any) -> None:
    stack = Stack(cloud, "nat-gateway")
    stack.create(
        {
            **network(
                Address={"Type": "AWS::EC2::EIP", "Properties": {"Domain": "vpc"}},
                Gateway={
                    "Type": "AWS::EC2::NatGateway",
                    "Properties": {
                        "SubnetId": {"Ref": "Subnet"},
                        "AllocationId": {"Fn::GetAtt": ["Address", "AllocationId"]},
                    },
                },
            ),
            "Outputs": {"Address": {"Value": {"Ref": "Address"}}},
        }
    )
    assert stack.outcome() == "CREATE_COMPLETE"
    gateway = ec2.describe_nat_gateways(NatGatewayIds=[stack.physical_id("Gateway")])
    held = gateway["NatGateways"][0]["NatGatewayAddresses"][0]

    assert held["PublicIp"] == stack.physical_id("Address")
    now = datetime.now(UTC)
    errors = cloud.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/NATGateway",
        MetricName="ErrorPortAllocation",
        Dimensions=[{"Name": "NatGatewayId", "Value": stack.physical_id("Gateway")}],
        StartTime=now - timedelta(days=1),
        EndTime=now,
        Period=3600,
        Statistics=["Sum"],
    )
    assert [point["Sum"] for point in errors["Datapoints"]] == [0.0]
    with pytest.raises(ClientError, match="in use"):
        ec2.release_address(AllocationId=held["AllocationId"])
    assert stack.delete() == "DELETE_COMPLETE"
    known = [item["AllocationId"] for item in ec2.describe_addresses()["Addresses"]]
    assert held["AllocationId"] not in known


def test_a_hosted_zone_names_its_servers_without_a_trailing_dot(cloud: Cloud) -> None:
    zone = cloud.client("route53").create_hosted_zone(
        Name="example.info", CallerReference="Z0TESTEXAMPLEINFO"
    )
    servers = zone["DelegationSet"]["NameServers"]
    assert len(servers) == 4
    assert not [name for name in servers if name.endswith(".")]
