"""EC2 instances where their subnet says, and that take a moment to shut down.

ministack 1.5.33 puts every instance in the Region's first zone with an address from 10.0.0.0/16 and
a public one, hides its user data, and has it terminated at once with its volumes still attached.
The machines themselves are not this program's business: the lab boots them from what
DescribeInstances says.
"""

import base64
import binascii
import ipaddress
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from lab.cloud.emulator import images
from lab.cloud.emulator.upstream import (
    EC2_ACTIONS,
    Handler,
    Parameters,
    Response,
    concurrency,
    ec2,
    ec2_answer,
    ec2_error,
    parameter,
    wrap,
)
from lab.cloud.emulator.volumes import release_volumes

Instance = dict[str, Any]

SHUTDOWN_SECONDS = float(os.environ["POSTERN_SHUTDOWN_SECONDS"])
MAX_USER_DATA_BYTES = 16384

# AWS keeps a subnet's first four addresses and its last one for itself.
_RESERVED_ADDRESSES = 4

_state_changed = threading.Condition()
_after_termination: list[Callable[[str], None]] = []
_last_address: dict[str, ipaddress.IPv4Address] = {}


def install() -> None:
    wrap(EC2_ACTIONS, "RunInstances", run_instances)
    wrap(EC2_ACTIONS, "TerminateInstances", terminate_instances)
    wrap(EC2_ACTIONS, "DescribeInstanceAttribute", describe_instance_attribute)
    wrap(vars(ec2), "_launch_instances_internal", _launch)
    wrap(vars(ec2), "_instance_xml", _instance_xml)


def run_instances(original: Handler, parameters: Parameters) -> Response:
    """RunInstances, with the limit on user data that AWS has."""
    try:
        user_data = base64.b64decode(parameter(parameters, "UserData"), validate=True)
    except binascii.Error:
        return ec2_error("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data")
    if len(user_data) > MAX_USER_DATA_BYTES:
        return ec2_error("InvalidParameterValue", "User data is limited to 16384 bytes")
    return original(parameters)


def _launch(original: Callable[..., list[Instance]], **arguments: Any) -> list[Instance]:
    instances = original(**arguments)
    subnet = ec2._subnets[arguments["subnet_id"]]
    zone = subnet["AvailabilityZone"]
    for instance in instances:
        instance["Placement"]["AvailabilityZone"] = zone
        instance["Architecture"] = images.architecture(instance["ImageId"])
        if not arguments.get("requested_private_ip"):
            instance["PrivateIpAddress"] = None  # the one drawn from 10.0.0.0/16
            instance["PrivateIpAddress"] = _free_private_address(subnet)
        dashed = instance["PrivateIpAddress"].replace(".", "-")
        instance["PrivateDnsName"] = f"ip-{dashed}.ec2.internal"
        if not subnet["MapPublicIpOnLaunch"]:
            instance["PublicIpAddress"] = instance["PublicDnsName"] = ""
        for mapping in instance["BlockDeviceMappings"]:
            ec2._volumes[mapping["Ebs"]["VolumeId"]]["AvailabilityZone"] = zone
    return instances


def _free_private_address(subnet: dict[str, Any]) -> str:
    """The next free address after the last one given, so that a new host differs from the old."""
    hosts = list(ipaddress.IPv4Network(subnet["CidrBlock"]).hosts())[_RESERVED_ADDRESSES - 1 :]
    taken = {
        instance["PrivateIpAddress"]
        for instance in ec2._instances.values()
        if instance["SubnetId"] == subnet["SubnetId"] and instance["State"]["Name"] != "terminated"
    }
    last = _last_address.get(subnet["SubnetId"], hosts[0])
    in_turn = [host for host in hosts if host > last] + [host for host in hosts if host <= last]
    free = next(host for host in in_turn if str(host) not in taken)
    _last_address[subnet["SubnetId"]] = free
    return str(free)


def terminate_instances(original: Handler, parameters: Parameters) -> Response:
    """TerminateInstances: shutting-down now, terminated when the machine has had time to stop."""
    running = [
        instance_id
        for instance_id in ec2._parse_member_list(parameters, "InstanceId")
        if ec2._instances.get(instance_id, {}).get("State", {}).get("Name")
        not in (None, "shutting-down", "terminated")
    ]
    status, headers, body = original(parameters)
    if status >= 400:
        return status, headers, body
    for instance_id in running:
        ec2._instances[instance_id]["State"] = {"Code": 32, "Name": "shutting-down"}
    if running:
        concurrency.spawn_background(_finish_termination, running, thread_name="shutting-down")
    body = body.replace(
        b"<currentState><code>48</code><name>terminated</name>",
        b"<currentState><code>32</code><name>shutting-down</name>",
    )
    return status, headers, body


def _finish_termination(instance_ids: Iterable[str]) -> None:
    time.sleep(SHUTDOWN_SECONDS)
    for instance_id in instance_ids:
        instance = ec2._instances[instance_id]
        release_volumes(instance_id)
        instance["BlockDeviceMappings"] = []
        with _state_changed:
            instance["State"] = {"Code": 48, "Name": "terminated"}
            instance["_terminated_at"] = time.time()  # ministack forgets it a minute later
            _state_changed.notify_all()
        for callback in _after_termination:
            callback(instance_id)


def after_termination(callback: Callable[[str], None]) -> None:
    """Call ``callback`` with the id of every instance that becomes terminated."""
    _after_termination.append(callback)


def wait_until_terminated(instance_ids: Iterable[str]) -> None:
    """Blocks; for worker threads only."""

    def all_terminated() -> bool:
        states = [ec2._instances.get(instance_id) for instance_id in instance_ids]
        return all(state is None or state["State"]["Name"] == "terminated" for state in states)

    with _state_changed:
        _state_changed.wait_for(all_terminated)


def describe_instance_attribute(original: Handler, parameters: Parameters) -> Response:
    instance = ec2._instances.get(parameter(parameters, "InstanceId"))
    if instance is None or parameter(parameters, "Attribute") != "userData":
        return original(parameters)
    value = f"<value>{instance['UserData']}</value>" if instance["UserData"] else ""
    return ec2_answer(
        "DescribeInstanceAttributeResponse",
        f"<instanceId>{instance['InstanceId']}</instanceId><userData>{value}</userData>",
    )


def _instance_xml(original: Callable[[Instance], str], instance: Instance) -> str:
    """An instance as DescribeInstances shows it, with its metadata options."""
    xml = re.sub(r"<ipAddress>\s*</ipAddress>", "", original(instance))
    options = instance.get("MetadataOptions", {})
    metadata = (
        f"<metadataOptions><state>applied</state>"
        f"<httpTokens>{options.get('HttpTokens', 'optional')}</httpTokens>"
        f"<httpPutResponseHopLimit>{options.get('HttpPutResponseHopLimit', 1)}"
        f"</httpPutResponseHopLimit>"
        f"<httpEndpoint>{options.get('HttpEndpoint', 'enabled')}</httpEndpoint></metadataOptions>"
    )
    return xml.removesuffix("</item>") + metadata + "</item>"
