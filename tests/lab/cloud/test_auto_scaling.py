"""A deployment goes green only when the host it started has said so."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from lab.cloud.cloud import Cloud
from tests.lab.cloud.conftest import running_cloud
from tests.lab.cloud.stacks import Stack, mail_host_group, network

pytestmark = pytest.mark.lab


@pytest.fixture
def stack(cloud: Cloud, request: pytest.FixtureRequest) -> Stack:
    return Stack(cloud, request.node.name.replace("_", "-"))


@pytest.fixture
def slow_to_end(tmp_path: Path) -> Iterator[Stack]:
    """A stack whose instances shut down long enough for a test to do something meanwhile."""
    with running_cloud(tmp_path, shutdown_seconds=30) as cloud:
        yield Stack(cloud, "slow-to-end")


def created(stack: Stack, user_data: str = "first") -> str:
    """A stack whose host has signalled; the host's instance id."""
    stack.create(mail_host_group(user_data=user_data))
    instance_id = str(stack.new_instance()["InstanceId"])
    stack.signal(instance_id)
    assert stack.outcome() == "CREATE_COMPLETE"
    return instance_id


def test_the_group_launches_what_its_launch_template_says(stack: Stack) -> None:
    stack.create(mail_host_group(user_data="#cloud-config\n"))
    instance = stack.new_instance()

    assert stack.user_data(instance) == "#cloud-config\n"
    assert instance["Placement"]["AvailabilityZone"] == "us-east-1b"
    assert instance["PrivateIpAddress"] in {f"10.9.0.{host}" for host in range(68, 79)}
    assert "PublicIpAddress" not in instance
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    assert tags["Name"] == "mail"
    assert tags["project"] == "postern"
    root = instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    volume = stack.ec2.describe_volumes(VolumeIds=[root])["Volumes"][0]
    assert (volume["Size"], volume["Encrypted"]) == (10, True)
    stack.signal(instance["InstanceId"])
    assert stack.outcome() == "CREATE_COMPLETE"
    (group,) = stack.cloud.client("autoscaling").describe_auto_scaling_groups(
        AutoScalingGroupNames=[stack.physical_id("Group")]
    )["AutoScalingGroups"]
    assert group["AvailabilityZones"] == ["us-east-1b"]


def test_a_stack_waits_for_its_host_and_says_what_it_heard(stack: Stack) -> None:
    stack.create(mail_host_group(user_data="first"))
    instance_id = stack.new_instance()["InstanceId"]
    status = stack.cloud.stack_events(stack.id)[-1].status
    stack.signal(instance_id)

    assert status == "CREATE_IN_PROGRESS"
    assert stack.outcome() == "CREATE_COMPLETE"
    assert f"Received SUCCESS signal with UniqueId {instance_id}" in stack.reasons()


def test_a_failing_host_rolls_the_creation_back_with_its_reason(stack: Stack) -> None:
    stack.create(mail_host_group(user_data="first"))
    instance_id = stack.new_instance()["InstanceId"]
    stack.signal(f"{instance_id} dkim-key-not-in-dns", "FAILURE")

    assert stack.outcome() == "ROLLBACK_COMPLETE"
    assert (
        f"Received FAILURE signal with UniqueId {instance_id} dkim-key-not-in-dns"
        in stack.reasons()
    )
    assert (
        "Received 1 FAILURE signal(s) out of 1. Unable to satisfy 100% "
        "MinSuccessfulInstancesPercent requirement" in stack.reasons()
    )
    assert stack.instances() == []


def test_a_silent_host_fails_the_stack_when_the_time_is_over(stack: Stack) -> None:
    stack.create(mail_host_group(user_data="first", timeout="PT1S"))

    assert stack.outcome() == "ROLLBACK_COMPLETE"
    assert any("Each resource signal timeout is counted" in text for text in stack.reasons())
    assert any("Received 0 SUCCESS signal(s) out of 1" in text for text in stack.reasons())


def test_a_changed_launch_template_replaces_the_host(stack: Stack) -> None:
    old = created(stack)
    stack.update(mail_host_group(user_data="second"))
    new = stack.new_instance(besides=old)

    assert [instance["InstanceId"] for instance in stack.instances()] == [new["InstanceId"]]
    assert stack.user_data(new) == "second"
    stack.signal(new["InstanceId"])
    assert stack.outcome() == "UPDATE_COMPLETE"
    assert f"Successfully terminated instance(s) [{old}] (Progress 100%)." in stack.reasons()


def test_a_failed_update_goes_back_to_the_previous_host_and_waits_for_it(stack: Stack) -> None:
    old = created(stack)
    stack.update(mail_host_group(user_data="second"))
    broken = stack.new_instance(besides=old)["InstanceId"]
    stack.signal(f"{broken} sendmail-not-running", "FAILURE")
    restored = stack.new_instance(besides=broken)
    status = stack.cloud.stack_events(stack.id)[-1].status

    assert status == "UPDATE_IN_PROGRESS"
    assert stack.user_data(restored) == "first"
    stack.signal(restored["InstanceId"])
    assert stack.outcome() == "UPDATE_ROLLBACK_COMPLETE"
    assert [instance["InstanceId"] for instance in stack.instances()] == [restored["InstanceId"]]


def test_a_host_terminated_from_outside_is_replaced(stack: Stack) -> None:
    old = created(stack)
    stack.ec2.terminate_instances(InstanceIds=[old])

    assert stack.new_instance(besides=old)["State"]["Name"] == "running"


def test_deleting_the_stack_ends_its_hosts(stack: Stack) -> None:
    created(stack)

    assert stack.delete() == "DELETE_COMPLETE"
    assert stack.instances() == []


def test_nobody_can_signal_a_stack_that_does_not_wait(stack: Stack) -> None:
    instance_id = created(stack)

    with pytest.raises(ClientError, match="cannot be signaled"):
        stack.signal(instance_id)


def test_user_data_over_16_kib_is_refused(stack: Stack) -> None:
    stack.create(mail_host_group(user_data="x" * 16385))

    assert stack.outcome() == "ROLLBACK_COMPLETE"
    assert "User data is limited to 16384 bytes" in stack.reasons()


def test_a_volume_goes_to_one_host_at_a_time_in_its_own_zone(slow_to_end: Stack) -> None:
    stack = slow_to_end
    volumes = {
        f"Volume{zone}": {
            "Type": "AWS::EC2::Volume",
            "Properties": {
                "AvailabilityZone": f"us-east-1{zone}",
                "Size": 5,
                "VolumeType": "gp3",
                "Encrypted": True,
            },
        }
        for zone in "ab"
    }
    template = mail_host_group(user_data="first")
    template["Resources"].update(network(**volumes)["Resources"])
    stack.create(template)
    first = stack.new_instance()["InstanceId"]
    stack.signal(first)
    assert stack.outcome() == "CREATE_COMPLETE"
    there, elsewhere = stack.physical_id("Volumeb"), stack.physical_id("Volumea")

    with pytest.raises(ClientError, match=r"InvalidVolume\.ZoneMismatch"):
        stack.ec2.attach_volume(VolumeId=elsewhere, InstanceId=first, Device="/dev/sdf")
    stack.ec2.attach_volume(VolumeId=there, InstanceId=first, Device="/dev/sdf")
    stack.ec2.terminate_instances(InstanceIds=[first])
    with pytest.raises(ClientError, match="VolumeInUse"):
        stack.ec2.attach_volume(VolumeId=there, InstanceId=first, Device="/dev/sdf")
    second = stack.new_instance(besides=first)["InstanceId"]
    stack.ec2.attach_volume(VolumeId=there, InstanceId=second, Device="/dev/sdg")

    attachments = stack.ec2.describe_volumes(VolumeIds=[there])["Volumes"][0]["Attachments"]
    assert [(item["InstanceId"], item["Device"]) for item in attachments] == [(second, "/dev/sdg")]


def test_instances_are_found_in_their_group(stack: Stack) -> None:
    instance_id = created(stack)
    groups = stack.cloud.client("autoscaling").describe_auto_scaling_groups(
        AutoScalingGroupNames=[stack.physical_id("Group")]
    )["AutoScalingGroups"]

    members = [(item["InstanceId"], item["LifecycleState"]) for item in groups[0]["Instances"]]
    assert members == [(instance_id, "InService")]
