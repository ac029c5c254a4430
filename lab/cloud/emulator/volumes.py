"""EBS volumes: AWS::EC2::Volume, and the rules of attaching one.

ministack 1.5.33 has the EC2 actions but no CloudFormation type, and attaches a volume that is
already attached, from any zone, to an instance in any state.
"""

from lab.cloud.emulator.upstream import (
    EC2_ACTIONS,
    RESOURCE_TYPES,
    Handler,
    Parameters,
    Properties,
    Resource,
    Response,
    ec2,
    ec2_error,
    ec2_request,
    element_text,
    parameter,
    provisioners,
    refuse_unknown_properties,
    wrap,
)

_TYPE = "AWS::EC2::Volume"
_PROPERTIES = {
    "AvailabilityZone",
    "Encrypted",
    "Iops",
    "KmsKeyId",
    "MultiAttachEnabled",
    "Size",
    "Tags",
    "Throughput",
    "VolumeType",
}
_MODIFIABLE = {"Iops", "Size", "VolumeType"}


def install() -> None:
    wrap(EC2_ACTIONS, "AttachVolume", attach_volume)
    RESOURCE_TYPES[_TYPE] = {"create": _create, "update": _update, "delete": _delete}
    provisioners._STACK_TAG_PROPERTY[_TYPE] = ("Tags", "list")


def attach_volume(original: Handler, parameters: Parameters) -> Response:
    volume_id = parameter(parameters, "VolumeId")
    instance_id = parameter(parameters, "InstanceId")
    device = parameter(parameters, "Device")
    volume = ec2._volumes.get(volume_id)
    instance = ec2._instances.get(instance_id)
    if volume is None or instance is None:
        return original(parameters)  # which knows the errors for these
    refusal = None
    if not device:
        refusal = ("MissingParameter", "The request must contain the parameter device")
    elif volume["State"] != "available":
        refusal = ("VolumeInUse", f"{volume_id} is already attached to an instance")
    elif volume["AvailabilityZone"] != instance["Placement"]["AvailabilityZone"]:
        refusal = (
            "InvalidVolume.ZoneMismatch",
            (
                f"The volume '{volume_id}' is not in the same availability zone as instance "
                f"'{instance_id}'"
            ),
        )
    elif instance["State"]["Name"] not in ("running", "stopped"):
        refusal = ("IncorrectState", f"Instance '{instance_id}' is not 'running'.")
    elif device in _devices(instance_id):
        refusal = (
            "InvalidParameterValue",
            f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use",
        )
    if refusal:
        code, message = refusal
        return ec2_error(code, message)
    return original(parameters)


def _devices(instance_id: str) -> set[str]:
    return {
        attachment["Device"]
        for volume in ec2._volumes.values()
        for attachment in volume["Attachments"]
        if attachment["InstanceId"] == instance_id
    }


def release_volumes(instance_id: str) -> None:
    """What EC2 does with a terminated instance's volumes: delete its own, detach the others."""
    for volume_id, volume in list(ec2._volumes.items()):
        for attachment in list(volume["Attachments"]):
            if attachment["InstanceId"] != instance_id:
                continue
            volume["Attachments"].remove(attachment)
            volume["State"] = "available"
            if attachment["DeleteOnTermination"]:
                del ec2._volumes[volume_id]


def _create(_logical_id: str, properties: Properties, _stack_name: str) -> Resource:
    refuse_unknown_properties(_TYPE, properties, _PROPERTIES)
    if str(properties.get("MultiAttachEnabled", False)).lower() == "true":
        raise ValueError("The lab does not emulate volumes that several instances attach.")
    request = {name: value for name, value in properties.items() if name != "Tags"}
    volume_id = element_text(ec2_request("CreateVolume", **request), "volumeId")
    # CreateVolume of ministack 1.5.33 ignores this one.
    if "Throughput" in properties:
        ec2._volumes[volume_id]["Throughput"] = int(properties["Throughput"])
    provisioners._ec2_apply_tags(volume_id, properties)
    return volume_id, {"VolumeId": volume_id}


def _update(physical_id: str, old: Properties, new: Properties, _stack_name: str) -> Resource:
    refuse_unknown_properties(_TYPE, new, _PROPERTIES)
    changed = {name for name in _PROPERTIES - {"Tags"} if old.get(name) != new.get(name)}
    if fixed := sorted(changed - _MODIFIABLE):
        # AWS: "Updates are not supported" for the zone, the key and encryption.
        raise ValueError(f"Update to {', '.join(fixed)} of {_TYPE} is not supported.")
    if int(new["Size"]) < int(old["Size"]):
        raise ValueError("New size cannot be smaller than existing size")
    if changed:
        request = {name: new[name] for name in changed if name in new}
        ec2_request("ModifyVolume", VolumeId=physical_id, **request)
    provisioners._ec2_apply_tags(physical_id, new, old)
    return physical_id, {"VolumeId": physical_id}


def _delete(physical_id: str, _properties: Properties) -> None:
    if physical_id in ec2._volumes:
        ec2_request("DeleteVolume", VolumeId=physical_id)
