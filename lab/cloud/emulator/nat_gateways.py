"""NAT gateways: AWS::EC2::NatGateway, and the Elastic IP each one holds.

ministack 1.5.33 has the EC2 actions, but no CloudFormation type, does not associate the address,
describes every gateway without one and publishes no metric of it.
"""

import re
import time

from lab.cloud.emulator.upstream import (
    EC2_ACTIONS,
    RESOURCE_TYPES,
    Handler,
    Parameters,
    Properties,
    Resource,
    Response,
    cloudwatch,
    ec2,
    ec2_error,
    ec2_request,
    element_text,
    parameter,
    provisioners,
    refuse_unknown_properties,
    wrap,
)

_TYPE = "AWS::EC2::NatGateway"
_PROPERTIES = {"AllocationId", "SubnetId", "Tags"}


def install() -> None:
    wrap(EC2_ACTIONS, "CreateNatGateway", create_nat_gateway)
    wrap(EC2_ACTIONS, "DeleteNatGateway", delete_nat_gateway)
    wrap(EC2_ACTIONS, "DescribeNatGateways", describe_nat_gateways)
    RESOURCE_TYPES[_TYPE] = {"create": _create, "update": _update, "delete": _delete}
    provisioners._STACK_TAG_PROPERTY[_TYPE] = ("Tags", "list")


def create_nat_gateway(original: Handler, parameters: Parameters) -> Response:
    """CreateNatGateway of a public gateway, which takes its address away from other uses."""
    allocation_id = parameter(parameters, "AllocationId")
    address = ec2._addresses.get(allocation_id)
    if address is None:
        return ec2_error(
            "InvalidAllocationID.NotFound", f"The allocation ID '{allocation_id}' does not exist"
        )
    if address["AssociationId"]:
        return ec2_error(
            "Resource.AlreadyAssociated",
            f"Elastic IP address [{allocation_id}] is already associated",
        )
    answer = original(parameters)
    gateway_id = element_text(answer[2].decode(), "natGatewayId")
    address["AssociationId"] = gateway_id.replace("nat-", "eipassoc-")
    _publish_no_port_errors(gateway_id)
    return answer


def _publish_no_port_errors(gateway_id: str) -> None:
    """The metric of every gateway: AWS publishes it each minute, this once."""
    cloudwatch._store_datum(
        "AWS/NATGateway",
        "ErrorPortAllocation",
        {"NatGatewayId": gateway_id},
        time.time(),
        unit="Count",
        value=0.0,
        values=None,
        counts=None,
        stat_values=None,
    )


def delete_nat_gateway(original: Handler, parameters: Parameters) -> Response:
    gateway = ec2._nat_gateways.get(parameter(parameters, "NatGatewayId"), {})
    answer = original(parameters)
    if address := ec2._addresses.get(gateway.get("AllocationId")):
        address["AssociationId"] = None
    return answer


def describe_nat_gateways(original: Handler, parameters: Parameters) -> Response:
    status, headers, body = original(parameters)
    text = re.sub(
        r"(<natGatewayId>(nat-\w+)</natGatewayId>.*?)<natGatewayAddressSet/>",
        lambda gateway: gateway[1] + _addresses_xml(gateway[2]),
        body.decode(),
        flags=re.DOTALL,
    )
    return status, headers, text.encode()


def _addresses_xml(gateway_id: str) -> str:
    gateway = ec2._nat_gateways[gateway_id]
    address = ec2._addresses.get(gateway["AllocationId"])
    if gateway["State"] != "available" or address is None:
        return "<natGatewayAddressSet/>"
    return (
        "<natGatewayAddressSet><item>"
        f"<allocationId>{address['AllocationId']}</allocationId>"
        f"<associationId>{address['AssociationId']}</associationId>"
        f"<isPrimary>true</isPrimary><publicIp>{address['PublicIp']}</publicIp>"
        "<status>succeeded</status></item></natGatewayAddressSet>"
    )


def _create(_logical_id: str, properties: Properties, _stack_name: str) -> Resource:
    refuse_unknown_properties(_TYPE, properties, _PROPERTIES)
    answer = ec2_request(
        "CreateNatGateway",
        SubnetId=properties["SubnetId"],
        AllocationId=properties["AllocationId"],
    )
    gateway_id = element_text(answer, "natGatewayId")
    provisioners._ec2_apply_tags(gateway_id, properties)
    return gateway_id, {"NatGatewayId": gateway_id}


def _update(physical_id: str, old: Properties, new: Properties, stack_name: str) -> Resource:
    if any(old.get(name) != new.get(name) for name in ("AllocationId", "SubnetId")):
        return _create("", new, stack_name)  # a replacement: the old one goes in the cleanup
    provisioners._ec2_apply_tags(physical_id, new, old)
    return physical_id, {"NatGatewayId": physical_id}


def _delete(physical_id: str, _properties: Properties) -> None:
    if physical_id in ec2._nat_gateways:
        ec2_request("DeleteNatGateway", NatGatewayId=physical_id)
