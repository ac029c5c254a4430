"""What an environment's templates cost a month, as far as a template can tell."""

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from review.engine import Template

Resource = Mapping[str, Any]

_FILE = Path(__file__).with_name("prices.toml")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A number of equal things. `unit` is the price of one for a month, None when unknown."""

    what: str
    number: int
    unit: Decimal | None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """USD a month. `by_use`, `unknown`: what is not in it, by name."""

    lines: tuple[Line, ...]
    by_use: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def total(self) -> Decimal:
        return sum(
            (line.number * line.unit for line in self.lines if line.unit is not None), Decimal()
        )


class Prices:
    """The list prices of prices.toml."""

    def __init__(self) -> None:
        prices = tomllib.loads(_FILE.read_text("utf-8"), parse_float=Decimal)
        self.region: str = prices["region"]
        self._hours: int = prices["hours"]
        self._monthly: Mapping[str, Decimal] = prices["monthly"]
        self._hourly: Mapping[str, Decimal] = prices["hourly"]
        self._instances: Mapping[str, Decimal] = prices["instances"]
        self._by_use: list[str] = prices["by_use"]["types"]
        self._free: list[str] = prices["free"]["types"]

    def cost(self, templates: Mapping[str, Template]) -> Cost:
        """Of all stacks of an environment together."""
        resources = [
            resource
            for template in templates.values()
            for resource in template.get("Resources", {}).values()
        ]
        counted: Counter[tuple[str, Decimal | None]] = Counter()
        for resource in resources:
            for what, number, unit in self._billed(resource):
                counted[what, unit] += number
        for template in templates.values():
            for what, number, unit in self._hosts(template.get("Resources", {})):
                counted[what, unit] += number
        types = {resource["Type"] for resource in resources}
        lines = [
            Line(what=what, number=number, unit=unit)
            for (what, unit), number in sorted(counted.items(), key=lambda item: item[0][0])
        ]
        return Cost(
            lines=tuple(lines),
            by_use=tuple(sorted(types.intersection(self._by_use))),
            unknown=(
                *(line.what for line in lines if line.unit is None),
                *sorted(filter(self._is_unknown, types)),
            ),
        )

    def _is_unknown(self, of_type: str) -> bool:
        known = (*self._monthly, *self._hourly, *self._by_use, *self._free, "AWS::EC2::VPCEndpoint")
        return of_type not in known

    def _billed(self, resource: Resource) -> Iterator[tuple[str, int, Decimal | None]]:
        properties = resource.get("Properties", {})
        kind: str = resource["Type"]
        if kind in self._monthly:
            yield kind, 1, self._monthly[kind]
        if kind in self._hourly:
            yield kind, 1, self._hours * self._hourly[kind]
        match kind:
            case "AWS::EC2::EIP":
                yield self._address()
            case "AWS::EC2::NatGateway" if isinstance(properties.get("AllocationId"), str):
                yield self._address()  # one that the environment names
            case "AWS::EC2::Volume":
                yield self._storage(properties)
            case "AWS::EC2::VPCEndpoint" if properties.get("VpcEndpointType") != "Gateway":
                yield "interface endpoint", 1, None
            case "AWS::Logs::MetricFilter":
                number = len(properties["MetricTransformations"])
                yield "CloudWatch metric", number, self._monthly["metric"]
            case "AWS::CloudWatch::Alarm":
                # An expression is billed for each metric in it.
                parts = [part for part in properties.get("Metrics", []) if "MetricStat" in part]
                number = len(parts) if "Metrics" in properties else 1
                yield "metric with an alarm", number, self._monthly["alarm_metric"]

    def _hosts(
        self, resources: Mapping[str, Resource]
    ) -> Iterator[tuple[str, int, Decimal | None]]:
        for group in resources.values():
            if group["Type"] != "AWS::AutoScaling::AutoScalingGroup":
                continue
            launch_template = group["Properties"]["LaunchTemplate"]["LaunchTemplateId"]["Ref"]
            data = resources[launch_template]["Properties"]["LaunchTemplateData"]
            hosts = int(group["Properties"].get("DesiredCapacity", group["Properties"]["MinSize"]))
            instance_type = data["InstanceType"]
            price = self._instances.get(instance_type)
            yield f"{instance_type} host", hosts, None if price is None else self._hours * price
            for device in data.get("BlockDeviceMappings", []):
                what, gib, unit = self._storage(device["Ebs"])
                yield what, hosts * gib, unit

    def _address(self) -> tuple[str, int, Decimal]:
        return "public IPv4 address", 1, self._hours * self._hourly["public_ipv4"]

    def _storage(self, volume: Mapping[str, Any]) -> tuple[str, int, Decimal | None]:
        kind = volume["VolumeType"]
        size = volume.get("Size", volume.get("VolumeSize"))
        return f"GiB of {kind}", int(size or 0), self._monthly.get(f"{kind}_gib")
