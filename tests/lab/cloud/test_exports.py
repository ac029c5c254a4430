"""What one stack exports and another imports stays, as CloudFormation has it."""

import pytest

from lab.cloud.cloud import Cloud
from tests.lab.cloud.stacks import Stack, Template

pytestmark = pytest.mark.lab


def address(*zones: str) -> Template:
    """An Elastic IP for each zone, exported."""
    return {
        "Resources": {
            f"Address{zone}": {"Type": "AWS::EC2::EIP", "Properties": {"Domain": "vpc"}}
            for zone in zones
        },
        "Outputs": {
            f"Address{zone}": {
                "Value": {"Fn::GetAtt": [f"Address{zone}", "AllocationId"]},
                "Export": {"Name": f"address-{zone}"},
            }
            for zone in zones
        },
    }


def importer(zone: str) -> Template:
    return {
        "Resources": {
            "Topic": {
                "Type": "AWS::SNS::Topic",
                "Properties": {"DisplayName": {"Fn::ImportValue": f"address-{zone}"}},
            }
        }
    }


def test_an_update_that_removes_an_export_in_use_fails_and_goes_back(cloud: Cloud) -> None:
    exporting, importing = Stack(cloud, "exporting"), Stack(cloud, "importing")
    exporting.create(address("a", "b"))
    assert exporting.outcome() == "CREATE_COMPLETE"
    importing.create(importer("b"))
    assert importing.outcome() == "CREATE_COMPLETE"

    before = exporting.ec2.describe_addresses()["Addresses"]  # other stacks' too

    exporting.update(address("a"))

    assert exporting.outcome() == "UPDATE_ROLLBACK_COMPLETE"
    refusal = "Export address-b cannot be deleted as it is in use by importing"
    assert refusal in exporting.reasons()
    assert exporting.ec2.describe_addresses()["Addresses"] == before
    importing.update(importer("a"))
    assert importing.outcome() == "UPDATE_COMPLETE"
    exporting.update(address("a"))
    assert exporting.outcome() == "UPDATE_COMPLETE"
