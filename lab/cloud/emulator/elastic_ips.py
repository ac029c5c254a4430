"""Elastic IP addresses: AWS::EC2::EIP, and addresses from the documentation range.

ministack 1.5.33 has the EC2 actions but no CloudFormation type, draws addresses at random from
52.0.0.0/8 (other people's), and releases one that is in use.
"""

import ipaddress

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

# RFC 5737: for documentation, routed nowhere. The first host address is left to a router.
POOL = list(ipaddress.ip_network("203.0.113.0/24").hosts())[1:]

_TYPE = "AWS::EC2::EIP"
_PROPERTIES = {"Domain", "NetworkBorderGroup", "Tags"}


def install() -> None:
    wrap(EC2_ACTIONS, "AllocateAddress", allocate_address)
    wrap(EC2_ACTIONS, "ReleaseAddress", release_address)
    RESOURCE_TYPES[_TYPE] = {"create": _create, "update": _update, "delete": _delete}
    # Stack-level tags reach the types that are listed here.
    provisioners._STACK_TAG_PROPERTY[_TYPE] = ("Tags", "list")


def allocate_address(original: Handler, parameters: Parameters) -> Response:
    address = _free_address()
    if address is None:
        return ec2_error(
            "AddressLimitExceeded", "The maximum number of addresses has been reached."
        )
    status, headers, body = original(parameters)
    record = ec2._addresses[element_text(body.decode(), "allocationId")]
    body = body.replace(record["PublicIp"].encode(), address.encode())
    record["PublicIp"] = address
    return status, headers, body


def _free_address() -> str | None:
    taken = {record["PublicIp"] for record in ec2._addresses.values()}
    return next((str(address) for address in POOL if str(address) not in taken), None)


def release_address(original: Handler, parameters: Parameters) -> Response:
    """ReleaseAddress, refused as on AWS while the address is in use or has a PTR record.

    Codes and wording as reported in github.com/cloud-custodian/cloud-custodian/pull/8924.
    """
    allocation_id = parameter(parameters, "AllocationId")
    record = ec2._addresses.get(allocation_id, {})
    if record.get("AssociationId"):
        return ec2_error(
            "InvalidIPAddress.InUse",
            f"The address with allocation id [{allocation_id}] is in use and cannot be released.",
        )
    if record.get("PtrRecord"):
        return ec2_error(
            "InvalidAddress.PtrSet",
            f"The address with allocation id [{allocation_id}] cannot be released because it "
            "has a PTR record set.",
        )
    return original(parameters)


def _create(_logical_id: str, properties: Properties, _stack_name: str) -> Resource:
    refuse_unknown_properties(_TYPE, properties, _PROPERTIES)
    answer = ec2_request("AllocateAddress", Domain="vpc")
    allocation_id = element_text(answer, "allocationId")
    provisioners._ec2_apply_tags(allocation_id, properties)
    return _resource(allocation_id)


def _update(physical_id: str, old: Properties, new: Properties, _stack_name: str) -> Resource:
    refuse_unknown_properties(_TYPE, new, _PROPERTIES)
    allocation_id = _allocation_id(physical_id)
    provisioners._ec2_apply_tags(allocation_id, new, old)
    return _resource(allocation_id)


def _delete(physical_id: str, _properties: Properties) -> None:
    allocation_id = _allocation_id(physical_id)
    if allocation_id in ec2._addresses:
        ec2_request("ReleaseAddress", AllocationId=allocation_id)


def _resource(allocation_id: str) -> Resource:
    """``Ref`` of an Elastic IP is the address itself."""
    address = ec2._addresses[allocation_id]["PublicIp"]
    return address, {"AllocationId": allocation_id, "PublicIp": address}


def _allocation_id(address: str) -> str:
    return next(
        (key for key, record in ec2._addresses.items() if record["PublicIp"] == address), ""
    )
