"""Mail leaves through our own address, and nothing comes in."""

import ipaddress

from review.snapshots import joined
from tests.stacks.conftest import Synthesise, Templates, only, resources

STACK = "Network"


def _subnets(templates: Templates, kind: str) -> dict[str, tuple[str, str]]:
    """Logical id and CIDR of the subnets named so ("public" or "private"), by zone."""
    found = {}
    for logical_id, subnet in resources(templates[STACK], "AWS::EC2::Subnet").items():
        properties = subnet["Properties"]
        if {"Key": "aws-cdk:subnet-name", "Value": kind} in properties["Tags"]:
            found[properties["AvailabilityZone"]] = (logical_id, properties["CidrBlock"])
    return found


def _default_route(templates: Templates, subnet: str) -> dict[str, dict[str, str]]:
    (table,) = (
        association["Properties"]["RouteTableId"]
        for association in resources(
            templates[STACK], "AWS::EC2::SubnetRouteTableAssociation"
        ).values()
        if association["Properties"]["SubnetId"] == {"Ref": subnet}
    )
    (route,) = (
        route["Properties"]
        for route in resources(templates[STACK], "AWS::EC2::Route").values()
        if route["Properties"]["RouteTableId"] == table
    )
    assert route["DestinationCidrBlock"] == "0.0.0.0/0"
    return {key: value for key, value in route.items() if key.endswith("Id")}


def test_each_zones_gateway_uses_that_zones_elastic_ip(example: Templates) -> None:
    gateways = {
        gateway["Properties"]["SubnetId"]["Ref"]: gateway["Properties"]["AllocationId"]
        for gateway in resources(example[STACK], "AWS::EC2::NatGateway").values()
    }
    assert len(gateways) == 2
    exports = {
        output["Export"]["Name"]: joined(output["Value"])
        for output in example["SendingIdentity"]["Outputs"].values()
        if "Export" in output
    }
    addresses = resources(example["SendingIdentity"], "AWS::EC2::EIP")
    for zone, (subnet, _cidr) in _subnets(example, "public").items():
        elastic_ip = exports[gateways[subnet]["Fn::ImportValue"]].strip("<>").split(".")[0]
        tags = addresses[elastic_ip]["Properties"]["Tags"]
        assert {"Key": "Name", "Value": f"mail.example.com {zone}"} in tags


def test_a_host_reaches_the_internet_through_its_own_zones_gateway_only(
    example: Templates,
) -> None:
    gateways = resources(example[STACK], "AWS::EC2::NatGateway")
    for zone, (private, _cidr) in _subnets(example, "private").items():
        route = _default_route(example, private)
        gateway = gateways[route["NatGatewayId"]["Ref"]]
        public, _cidr = _subnets(example, "public")[zone]
        assert gateway["Properties"]["SubnetId"] == {"Ref": public}


def test_no_subnet_hands_out_public_addresses(example: Templates) -> None:
    for subnet in resources(example[STACK], "AWS::EC2::Subnet").values():
        assert subnet["Properties"]["MapPublicIpOnLaunch"] is False


def test_adding_a_zone_moves_no_subnet(example: Templates, synthesise: Synthesise) -> None:
    three = synthesise(
        ('["us-east-1a", "us-east-1b"]', '["us-east-1a", "us-east-1b", "us-east-1c"]')
    )
    for kind in ("public", "private"):
        before, after = _subnets(example, kind), _subnets(three, kind)
        assert {zone: after[zone] for zone in before} == before


def test_the_smallest_network_holds_the_most_zones(synthesise: Synthesise) -> None:
    zones = ", ".join(f'"us-east-1{letter}"' for letter in "abcdef")
    templates = synthesise(('["us-east-1a", "us-east-1b"]', f"[{zones}]"))
    whole = ipaddress.IPv4Network("10.40.0.0/24")
    cidrs = [
        ipaddress.IPv4Network(subnet["Properties"]["CidrBlock"])
        for subnet in resources(templates[STACK], "AWS::EC2::Subnet").values()
    ]
    assert len(cidrs) == 12
    assert all(whole.supernet_of(cidr) for cidr in cidrs)


def test_traffic_is_logged_under_a_key_of_our_own(example: Templates) -> None:
    flow_log = only(example[STACK], "AWS::EC2::FlowLog")["Properties"]
    assert flow_log["TrafficType"] == "ALL"
    log_group = example[STACK]["Resources"][flow_log["LogGroupName"]["Ref"]]["Properties"]
    assert "KmsKeyId" in log_group
    assert log_group["RetentionInDays"] == 30


def test_s3_is_reached_without_the_gateway(example: Templates) -> None:
    endpoint = only(example[STACK], "AWS::EC2::VPCEndpoint")["Properties"]
    assert endpoint["VpcEndpointType"] == "Gateway"
    assert joined(endpoint["ServiceName"]).endswith(".s3")
    used_by_hosts = {
        association["Properties"]["RouteTableId"]["Ref"]
        for logical_id, association in resources(
            example[STACK], "AWS::EC2::SubnetRouteTableAssociation"
        ).items()
        if "private" in logical_id.lower()
    }
    assert len(used_by_hosts) == 2
    assert used_by_hosts <= {table["Ref"] for table in endpoint["RouteTableIds"]}


def test_no_function_may_change_security_groups(example: Templates) -> None:
    """The CDK would add one to empty the default security group, which nothing uses."""
    assert not resources(example[STACK], "AWS::Lambda::Function")
