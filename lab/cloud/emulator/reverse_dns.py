"""Reverse DNS of Elastic IPs: Modify-, Reset- and DescribeAddressesAttribute.

ministack 1.5.33 describes every address without a PTR record and knows no way to set one.

As on AWS a change is PENDING for a while, and a PTR record is only made for a name whose A record
points at the address (EC2 User Guide, "Using reverse DNS for email applications"). AWS documents
neither the status nor the reason of a change that failed; the ones here are the lab's.
"""

import time

from lab.cloud.emulator.upstream import (
    EC2_ACTIONS,
    Parameters,
    Response,
    ec2,
    ec2_answer,
    ec2_error,
    parameter,
    route53,
)

PENDING_SECONDS = 1.0


def install() -> None:
    EC2_ACTIONS["ModifyAddressAttribute"] = modify_address_attribute
    EC2_ACTIONS["ResetAddressAttribute"] = reset_address_attribute
    EC2_ACTIONS["DescribeAddressesAttribute"] = describe_addresses_attribute


def modify_address_attribute(parameters: Parameters) -> Response:
    name = parameter(parameters, "DomainName").rstrip(".").lower() + "."
    return _request_change("ModifyAddressAttribute", parameters, name)


def reset_address_attribute(parameters: Parameters) -> Response:
    return _request_change("ResetAddressAttribute", parameters, "")


def _request_change(action: str, parameters: Parameters, name: str) -> Response:
    allocation_id = parameter(parameters, "AllocationId")
    address = ec2._addresses.get(allocation_id)
    if address is None:
        return _not_found(allocation_id)
    _settle(address)
    if address.get("PtrRecord", "") == name:
        address.pop("PtrUpdate", None)
    else:
        address["PtrUpdate"] = {
            "Value": name,
            "Status": "PENDING",
            "Reason": "",
            "SettlesAt": time.monotonic() + PENDING_SECONDS,
        }
    return ec2_answer(f"{action}Response", f"<address>{_attribute_xml(address)}</address>")


def describe_addresses_attribute(parameters: Parameters) -> Response:
    wanted = ec2._parse_member_list(parameters, "AllocationId")
    for allocation_id in wanted:
        if allocation_id not in ec2._addresses:
            return _not_found(allocation_id)
    items = ""
    for allocation_id, address in ec2._addresses.items():
        if not wanted or allocation_id in wanted:
            _settle(address)
            items += f"<item>{_attribute_xml(address)}</item>"
    return ec2_answer("DescribeAddressesAttributeResponse", f"<addressSet>{items}</addressSet>")


def _settle(address: dict[str, object]) -> None:
    """End a change whose time has come; DNS is looked at only then, as it may arrive meanwhile."""
    update = address.get("PtrUpdate")
    if not isinstance(update, dict) or update["Status"] != "PENDING":
        return
    if time.monotonic() < update["SettlesAt"]:
        return
    name, public_ip = str(update["Value"]), str(address["PublicIp"])
    if name and public_ip not in _a_record(name):
        update["Status"] = "FAILED"
        update["Reason"] = f"No A record of {name} points at {public_ip}."
        return
    address["PtrRecord"] = name
    del address["PtrUpdate"]


def _a_record(name: str) -> list[str]:
    """The addresses of an A record set in any public hosted zone, or none."""
    return [
        value
        for zone_id, records in route53._records.items()
        if not route53._zones[zone_id]["private"]
        for record in records
        if record["Type"] == "A" and record["Name"].lower() == name
        for value in record.get("ResourceRecords", [])
    ]


def _attribute_xml(address: dict[str, object]) -> str:
    xml = (
        f"<publicIp>{address['PublicIp']}</publicIp>"
        f"<allocationId>{address['AllocationId']}</allocationId>"
    )
    if address.get("PtrRecord"):
        xml += f"<ptrRecord>{address['PtrRecord']}</ptrRecord>"
    update = address.get("PtrUpdate")
    if isinstance(update, dict):
        xml += (
            f"<ptrRecordUpdate><value>{update['Value']}</value><status>{update['Status']}</status>"
            f"<reason>{update['Reason']}</reason></ptrRecordUpdate>"
        )
    return xml


def _not_found(allocation_id: str) -> Response:
    return ec2_error(
        "InvalidAllocationID.NotFound", f"The allocation ID '{allocation_id}' does not exist"
    )
