"""Network Load Balancers and what is behind them.

ministack 1.5.33 takes every one for an Application Load Balancer, gives it no address, and
no Auto Scaling group of its registers its instances. What passes through one is a matter of
`lab.instance.hypervisor`, which finds the addresses in DescribeLoadBalancers; AWS shows them there
only when they were chosen by whoever made the load balancer.
"""

import ipaddress
from collections.abc import Callable
from importlib import import_module
from typing import Any

from lab.cloud.emulator.upstream import (
    RESOURCE_TYPES,
    Parameters,
    Properties,
    Resource,
    Response,
    auto_scaling,
    ec2,
    responses,
    wrap,
)

_GROUP = "AWS::AutoScaling::AutoScalingGroup"
_LOAD_BALANCER = "AWS::ElasticLoadBalancingV2::LoadBalancer"

alb: Any = import_module("ministack.services.alb")

_target_groups: dict[str, list[str]] = {}
"""The target groups' ARNs of each Auto Scaling group, by its name."""


def install() -> None:
    load_balancer = RESOURCE_TYPES[_LOAD_BALANCER]
    wrap(load_balancer, "create", _create)
    wrap(load_balancer, "update", _update)
    wrap(vars(alb), "_lb_xml", _lb_xml)
    wrap(vars(alb), "_load_balancer_id_from_arn", lambda _, arn: arn.rpartition("/")[2])
    group = RESOURCE_TYPES[_GROUP]
    wrap(group, "create", _create_group)
    wrap(group, "update", _update_group)
    wrap(alb._ACTION_MAP, "DescribeTargetHealth", describe_target_health)


def _create(
    original: Callable[..., Resource], logical_id: str, properties: Properties, stack_name: str
) -> Resource:
    if properties.get("Type") != "network":
        raise ValueError("The lab emulates load balancers of the type network.")
    arn, _ = original(logical_id, properties, stack_name)
    balancer = alb._lbs.pop(arn)
    network_arn = arn.replace(":loadbalancer/app/", ":loadbalancer/net/")
    name, number = network_arn.split("/")[-2:]
    balancer["LoadBalancerArn"] = network_arn
    balancer["DNSName"] = f"{name}-{number}.elb.{responses.get_region()}.amazonaws.com"
    alb._lbs[network_arn] = balancer
    for table in (alb._tags, alb._lb_attrs):
        table[network_arn] = table.pop(arn)
    return network_arn, _attributes(balancer)


def _update(original: Callable[..., Resource], physical_id: str, *arguments: object) -> Resource:
    physical_id, _ = original(physical_id, *arguments)
    return physical_id, _attributes(alb._lbs[physical_id])


def _attributes(balancer: dict[str, Any]) -> dict[str, Any]:
    arn = balancer["LoadBalancerArn"]
    return {
        "Arn": arn,
        "LoadBalancerArn": arn,
        "LoadBalancerName": balancer["LoadBalancerName"],
        "DNSName": balancer["DNSName"],
        "LoadBalancerFullName": arn.partition(":loadbalancer/")[2],
        "CanonicalHostedZoneID": "Z26RNL4JYFTOTI",  # of Network Load Balancers in us-east-1
        "SecurityGroups": balancer["SecurityGroups"],
    }


def _lb_xml(original: Callable[[dict[str, Any]], str], balancer: dict[str, Any]) -> str:
    """A load balancer with its own zones, and an address in each."""
    before, _, rest = original(balancer).partition("<AvailabilityZones>")
    after = rest.partition("</AvailabilityZones>")[2]
    zones = ""
    for subnet_id in balancer.get("Subnets", []):
        subnet = ec2._subnets[subnet_id]
        network = ipaddress.IPv4Network(subnet["CidrBlock"])
        zones += (
            f"<member><ZoneName>{subnet['AvailabilityZone']}</ZoneName>"
            f"<SubnetId>{subnet_id}</SubnetId><LoadBalancerAddresses><member>"
            # The last that AWS leaves to a subnet's owner.
            f"<PrivateIPv4Address>{network.broadcast_address - 1}</PrivateIPv4Address>"
            "</member></LoadBalancerAddresses></member>"
        )
    return f"{before}<AvailabilityZones>{zones}</AvailabilityZones>{after}"


def _create_group(
    original: Callable[..., Resource], logical_id: str, properties: Properties, *rest: object
) -> Resource:
    name, attributes = original(logical_id, properties, *rest)
    _target_groups[name] = properties.get("TargetGroupARNs", [])
    return name, attributes


def _update_group(
    original: Callable[..., Resource],
    physical_id: str,
    old: Properties,
    new: Properties,
    *rest: object,
) -> Resource:
    _target_groups[physical_id] = new.get("TargetGroupARNs", [])
    return original(physical_id, old, new, *rest)


def describe_target_health(
    original: Callable[[Parameters], Response], parameters: Parameters
) -> Response:
    """The members of the Auto Scaling groups that are behind a target group; each is healthy."""
    arn = alb._p(parameters, "TargetGroupArn")
    if arn in alb._tgs:
        alb._targets[arn] = [
            {"Id": member["InstanceId"]}
            for name, group in auto_scaling._asgs.items()
            if arn in _target_groups.get(name, [])
            for member in group["Instances"]
        ]
    return original(parameters)
