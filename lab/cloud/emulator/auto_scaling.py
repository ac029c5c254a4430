"""Auto Scaling groups that launch instances, and stacks that wait for their signals.

ministack 1.5.33 fills a group with made-up instance ids and ignores CreationPolicy and
UpdatePolicy. Emulated here, as CloudFormation does it:

- CreationPolicy ResourceSignal: the group is created when its instances have signalled SUCCESS.
- UpdatePolicy AutoScalingRollingUpdate: a changed launch template or subnet list replaces the
  instances batch by batch, each waited for when WaitOnResourceSignals says so.
- A failed update goes back to the previous launch template on new instances, waited for alike.
- An instance terminated from outside is replaced.
- A group's availability zones are those of its subnets.

Event texts are AWS's, as found in public issue threads about failed stacks.
"""

import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lab.cloud.emulator import instances
from lab.cloud.emulator.resource_signals import expect_signals
from lab.cloud.emulator.stack_events import StackResource
from lab.cloud.emulator.upstream import (
    RESOURCE_TYPES,
    Handler,
    Parameters,
    Properties,
    Resource,
    Response,
    auto_scaling,
    ec2,
    ec2_request,
    element_text,
    parameter,
    stacks,
    wait_conditions,
    wrap,
)

Group = dict[str, Any]

_TYPE = "AWS::AutoScaling::AutoScalingGroup"

# A changed value of these makes instances obsolete.
_ROLLING_PROPERTIES = ("LaunchTemplate", "VPCZoneIdentifier")

_group_lock = threading.RLock()
_unfinished: dict[tuple[str, str], dict[str, Any]] = {}


def install() -> None:
    handlers = RESOURCE_TYPES[_TYPE]
    wrap(handlers, "create", _create)
    wrap(handlers, "update", _update)
    wrap(handlers, "delete", _delete)
    wrap(vars(auto_scaling), "_reconcile_instances", lambda _original, group: _fill(group))
    wrap(auto_scaling._ACTION_MAP, "DeleteAutoScalingGroup", delete_auto_scaling_group)
    # Waiting for a signal must not stop the event loop that is to receive it.
    wrap(vars(stacks), "_runs_on_worker_thread", _or_a_group)
    # What a failed rolling update launched is to be rolled back.
    wrap(vars(stacks), "_sends_back_failed_update", _or_a_group)
    wrap(vars(stacks), "_roll_back_operation", _roll_back_operation)
    instances.after_termination(_replace)


def _or_a_group(original: Callable[[str], bool], resource_type: str) -> bool:
    return resource_type == _TYPE or original(resource_type)


# The group itself


def _fill(group: Group) -> None:
    """Launch or terminate instances until the group has its desired capacity."""
    with _group_lock:
        members = group["Instances"]
        while len(members) < group["DesiredCapacity"]:
            members.append(_launch(group))
        surplus = [members.pop() for _ in range(len(members) - group["DesiredCapacity"])]
        _terminate([member["InstanceId"] for member in surplus])


def _launch(group: Group) -> dict[str, Any]:
    """Start one instance from the group's launch template; its entry in the group."""
    template, _, problem = ec2._resolve_launch_template_data(group["LaunchTemplate"])
    if problem:
        raise ValueError(element_text(problem[2].decode(), "Message"))
    image_id = template["ImageId"]
    if image_id not in ec2_request("DescribeImages", ImageId__1=image_id):
        raise ValueError(f"The image id '[{image_id}]' does not exist")
    interfaces = template.get("NetworkInterfaces", [])
    groups = interfaces[0].get("Groups", []) if interfaces else template.get("SecurityGroupIds", [])
    answer = ec2_request(
        "RunInstances",
        ImageId=image_id,
        InstanceType=template["InstanceType"],
        MinCount=1,
        MaxCount=1,
        SubnetId=_least_used_subnet(group),
        UserData=template.get("UserData"),
        IamInstanceProfile__Arn=template.get("IamInstanceProfile", {}).get("Arn"),
        IamInstanceProfile__Name=template.get("IamInstanceProfile", {}).get("Name"),
        **{f"SecurityGroupId__{number}": name for number, name in enumerate(groups, start=1)},
    )
    instance = ec2._instances[element_text(answer, "instanceId")]
    instance["MetadataOptions"] = template.get("MetadataOptions", {})
    _set_root_volume(instance, template.get("BlockDeviceMappings", []))
    ec2._tags[instance["InstanceId"]] = [*_template_tags(template), *_propagated_tags(group)]
    return {
        "InstanceId": instance["InstanceId"],
        "LifecycleState": "InService",
        "HealthStatus": "Healthy",
        "AvailabilityZone": instance["Placement"]["AvailabilityZone"],
        "ProtectedFromScaleIn": group["NewInstancesProtectedFromScaleIn"],
        "LaunchTemplate": group["LaunchTemplate"],
        "LaunchConfigurationName": "",
    }


def _least_used_subnet(group: Group) -> str:
    used = [ec2._instances[member["InstanceId"]]["SubnetId"] for member in group["Instances"]]
    subnets: list[str] = group["VPCZoneIdentifier"].split(",")
    return min(subnets, key=used.count)


def _set_root_volume(instance: dict[str, Any], mappings: list[dict[str, Any]]) -> None:
    for mapping in mappings:
        if mapping["DeviceName"] != instance["RootDeviceName"]:
            raise ValueError(f"The lab does not emulate a second volume: {mapping['DeviceName']}")
        volume = ec2._volumes[instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]]
        settings = mapping["Ebs"]
        volume["Size"] = int(settings.get("VolumeSize", volume["Size"]))
        volume["VolumeType"] = settings.get("VolumeType", volume["VolumeType"])
        volume["Encrypted"] = str(settings.get("Encrypted", False)).lower() == "true"


def _template_tags(template: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {"Key": tag["Key"], "Value": tag["Value"]}
        for specification in template.get("TagSpecifications", [])
        if specification["ResourceType"] == "instance"
        for tag in specification["Tags"]
    ]


def _propagated_tags(group: Group) -> list[dict[str, str]]:
    return [
        {"Key": "aws:autoscaling:groupName", "Value": group["AutoScalingGroupName"]},
        *(
            {"Key": tag["Key"], "Value": tag["Value"]}
            for tag in group["Tags"]
            if tag["PropagateAtLaunch"]
        ),
    ]


def _terminate(instance_ids: list[str]) -> None:
    for instance_id in instance_ids:
        if instance_id in ec2._instances:
            ec2_request("TerminateInstances", InstanceId__1=instance_id)


def _remove(group: Group, instance_ids: list[str]) -> None:
    """Terminate members and forget them, so that nothing is launched in their place yet."""
    with _group_lock:
        group["Instances"] = [
            member for member in group["Instances"] if member["InstanceId"] not in instance_ids
        ]
        _terminate(instance_ids)
    instances.wait_until_terminated(instance_ids)


def _replace(instance_id: str) -> None:
    """Launch another instance for a member that was terminated from outside the group."""
    with _group_lock:
        for group in list(auto_scaling._asgs.values()):
            members = group["Instances"]
            if any(member["InstanceId"] == instance_id for member in members):
                group["Instances"] = [
                    member for member in members if member["InstanceId"] != instance_id
                ]
                _fill(group)


def delete_auto_scaling_group(original: Handler, parameters: Parameters) -> Response:
    group = auto_scaling._asgs.get(parameter(parameters, "AutoScalingGroupName"))
    if group and group["Instances"]:
        if parameter(parameters, "ForceDelete") != "true":
            refusal: Response = auto_scaling._error(
                "ResourceInUse",
                "You cannot delete an AutoScalingGroup while there are instances or pending "
                "Spot instance request(s) still in the group.",
            )
            return refusal
        with _group_lock:
            _terminate([member["InstanceId"] for member in group["Instances"]])
            group["Instances"] = []
    return original(parameters)


# The group as a resource of a stack


def _create(
    original: Callable[..., Resource], logical_id: str, properties: Properties, stack_name: str
) -> Resource:
    physical_id, attributes = original(logical_id, _with_stack_tags(properties), stack_name)
    group = auto_scaling._asgs[physical_id]
    subnets = group["VPCZoneIdentifier"].split(",")
    group["AvailabilityZones"] = sorted({ec2._subnets[s]["AvailabilityZone"] for s in subnets})
    resource = StackResource(
        stack_name=stack_name, logical_id=logical_id, resource_type=_TYPE, physical_id=physical_id
    )
    resource.event("CREATE_IN_PROGRESS", "Resource creation Initiated")
    policy = resource.definition().get("CreationPolicy", {})
    with _deleted_in_a_rollback(resource, properties):
        if "ResourceSignal" not in policy:
            _fill(group)
            return physical_id, attributes
        signal = policy["ResourceSignal"]
        percent = policy.get("AutoScalingCreationPolicy", {}).get("MinSuccessfulInstancesPercent")
        with expect_signals(resource, status="CREATE_IN_PROGRESS") as expectation:
            _fill(group)
            expectation.wait(
                count=int(signal.get("Count", 1)),
                min_successful_percent=int(percent or 100),
                timeout_seconds=_seconds(signal.get("Timeout", "PT5M"), logical_id),
            )
    return physical_id, attributes


def _update(
    original: Callable[..., Resource],
    physical_id: str,
    old: Properties,
    new: Properties,
    stack_name: str,
    logical_id: str,
) -> Resource:
    if old.get("AutoScalingGroupName") != new.get("AutoScalingGroupName"):
        raise ValueError(f"The lab does not emulate a replacement of {_TYPE}.")
    new = _with_stack_tags(new)
    physical_id, attributes = original(physical_id, old, new, stack_name, logical_id)
    group = auto_scaling._asgs[physical_id]
    resource = StackResource(
        stack_name=stack_name, logical_id=logical_id, resource_type=_TYPE, physical_id=physical_id
    )
    policy = resource.definition().get("UpdatePolicy", {}).get("AutoScalingRollingUpdate")
    changed = any(old.get(name) != new.get(name) for name in _ROLLING_PROPERTIES)
    if changed and policy is not None:
        _roll(group, policy, resource)
    _fill(group)
    return physical_id, attributes


def _roll(group: Group, policy: dict[str, Any], resource: StackResource) -> None:
    """Replace every instance of the group, batch by batch; raises SignalError."""
    if int(policy.get("MinInstancesInService", 0)):
        raise ValueError("The lab does not emulate MinInstancesInService above 0.")
    signalled = str(policy.get("WaitOnResourceSignals", False)).lower() == "true"
    pause = policy.get("PauseTime", "PT5M" if signalled else "PT0S")
    size = int(policy.get("MaxBatchSize", 1))
    obsolete = [member["InstanceId"] for member in group["Instances"]]
    waiting = (
        f" Waiting on resource signals with a timeout of {pause} when new instances are added to "
        "the autoscaling group."
    )
    resource.event(
        "UPDATE_IN_PROGRESS",
        f"Rolling update initiated. Terminating {len(obsolete)} obsolete instance(s) in batches "
        f"of {size}.{waiting if signalled else ''}",
    )
    for start in range(0, len(obsolete), size):
        batch = obsolete[start : start + size]
        names = ",".join(batch)
        resource.event(
            "UPDATE_IN_PROGRESS",
            f"Terminating instance(s) [{names}]; replacing with {len(batch)} new instance(s).",
        )
        _remove(group, batch)
        progress = 100 * (start + len(batch)) // len(obsolete)
        resource.event(
            "UPDATE_IN_PROGRESS",
            f"Successfully terminated instance(s) [{names}] (Progress {progress}%).",
        )
        with expect_signals(resource, status="UPDATE_IN_PROGRESS") as expectation:
            _fill(group)
            if not signalled:
                if pause != "PT0S":
                    time.sleep(_seconds(pause, resource.logical_id))
                continue
            resource.event(
                "UPDATE_IN_PROGRESS",
                f"New instance(s) added to autoscaling group - Waiting on {len(batch)} resource "
                f"signal(s) with a timeout of {pause}.",
            )
            expectation.wait(
                count=len(batch),
                min_successful_percent=int(policy.get("MinSuccessfulInstancesPercent", 100)),
                timeout_seconds=_seconds(pause, resource.logical_id),
            )


def _delete(original: Callable[..., None], physical_id: str, properties: Properties) -> None:
    if group := auto_scaling._asgs.get(physical_id):
        group["DesiredCapacity"] = 0
        _remove(group, [member["InstanceId"] for member in group["Instances"]])
    original(physical_id, properties)


def _with_stack_tags(properties: Properties) -> Properties:
    """A template must say PropagateAtLaunch of each tag; a stack's own tags always propagate."""
    tags = [{"PropagateAtLaunch": True, **tag} for tag in properties.get("Tags", [])]
    return {**properties, "Tags": tags}


def _seconds(duration: str, logical_id: str) -> int:
    """Seconds of an ISO 8601 duration such as ``PT10M``; raises ValueError."""
    seconds: int = wait_conditions.validate_resource_signal_timeout(duration, logical_id)
    return seconds


@contextmanager
def _deleted_in_a_rollback(resource: StackResource, properties: Properties) -> Iterator[None]:
    """Let the rollback delete the group when its creation fails within the context.

    ministack 1.5.33 knows a resource only once its creation is complete, so a rollback would leave
    the group and its instances behind.
    """
    try:
        yield
    except Exception:
        _unfinished[resource.stack_id, resource.logical_id] = {
            "PhysicalResourceId": resource.physical_id,
            "ResourceType": _TYPE,
            "ResourceStatus": "CREATE_FAILED",
            "LogicalResourceId": resource.logical_id,
            "Properties": properties,
            "Attributes": {},
        }
        raise


async def _roll_back_operation(
    original: Callable[..., Awaitable[None]],
    stack_name: str,
    stack_id: str,
    stack: dict[str, Any],
    operation: dict[str, Any],
    *arguments: object,
) -> None:
    logical_id = operation["failed_logical_id"]
    if record := _unfinished.pop((stack_id, logical_id), None):
        stack["_resources"][logical_id] = record
        operation["created"].append(logical_id)
    await original(stack_name, stack_id, stack, operation, *arguments)
