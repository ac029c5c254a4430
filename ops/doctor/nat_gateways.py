"""The NAT gateways: on our addresses, available, and with ports left."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from ops.command_lines import cdk_deploy
from ops.doctor.facts import Facts
from ops.doctor.untold import told
from ops.verdicts import Finding, Verdict

PERIOD = timedelta(days=1)


def check_nat_gateways(facts: Facts) -> Iterator[Finding]:
    """Each gateway is there and sends from an address of the sending identity."""
    gateways = _gateways(facts)
    ours = {address.address for address in facts.addresses()}
    for gateway in gateways:
        used = {address.get("PublicIp", "") for address in gateway["NatGatewayAddresses"]}
        evidence = f"{gateway['State']}, sends from {', '.join(sorted(used))}"
        fine = gateway["State"] == "available" and used <= ours
        if not used <= ours:
            evidence += f", which SPF and reverse DNS do not name; they name {', '.join(ours)}"
        yield Finding(
            check=f"NAT gateway {gateway['NatGatewayId']}",
            verdict=Verdict.FINE if fine else Verdict.WRONG,
            evidence=evidence,
            remedy="" if fine else _remedy(facts, gateway),
        )
    zones = len(facts.settings.availability_zones)
    if len(gateways) != zones:
        yield Finding(
            check="NAT gateways",
            verdict=Verdict.WRONG,
            evidence=f"{len(gateways)} deployed; {facts.settings.file} has {zones} zones",
            remedy=_deploy(facts),
        )


def check_port_errors(facts: Facts) -> Iterator[Finding]:
    """No connection failed for want of a port (55,000 at a time to one destination)."""
    for gateway in facts.deployment.stack("Network").of_type("AWS::EC2::NatGateway"):
        name = gateway.physical_id
        yield told(f"Ports of {name}", partial(_port_errors, facts, name))


def _port_errors(facts: Facts, gateway: str, check: str) -> Finding:
    now = datetime.now(UTC)
    points = facts.deployment.call(
        "cloudwatch",
        "get_metric_statistics",
        Namespace="AWS/NATGateway",
        MetricName="ErrorPortAllocation",
        Dimensions=[{"Name": "NatGatewayId", "Value": gateway}],
        StartTime=now - PERIOD,
        EndTime=now,
        Period=3600,
        Statistics=["Sum"],
    )["Datapoints"]
    if not points:
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            evidence="CloudWatch has no ErrorPortAllocation of the last day",
            remedy="AWS publishes it each minute for a gateway that exists: run this again some "
            "minutes after its creation.",
        )
    errors = round(sum(point["Sum"] for point in points))
    evidence = f"{errors} port allocation errors in the last day"
    if not errors:
        return Finding(check=check, verdict=Verdict.FINE, evidence=evidence)
    return Finding(
        check=check,
        verdict=Verdict.WRONG,
        evidence=evidence,
        remedy="More than 55,000 connections at a time to one receiver. See the dashboard for "
        "whom, send to it more slowly, or add a zone, which brings an address of its own.",
    )


def _gateways(facts: Facts) -> list[dict[str, Any]]:
    resources = facts.deployment.stack("Network").of_type("AWS::EC2::NatGateway")
    if not resources:
        return []
    return facts.deployment.pages(
        "ec2",
        "describe_nat_gateways",
        "NatGateways",
        NatGatewayIds=[resource.physical_id for resource in resources],
    )


def _remedy(facts: Facts, gateway: dict[str, Any]) -> str:
    failure = gateway.get("FailureMessage")
    said = f"AWS says: {failure}. " if failure else ""
    return f"{said}Mail waits in the queue meanwhile. {_deploy(facts)}"


def _deploy(facts: Facts) -> str:
    return f"Deploy the network again: {cdk_deploy(facts.settings)}"
