"""The costs of a review are those of README.md's table."""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from review.cost import Prices
from review.snapshots import FOLDER, read
from tests.stacks.conftest import ROOT

Templates = Mapping[str, dict[str, Any]]


def templates_of(unit: str) -> Templates:
    return {
        file: json.loads(text)
        for file, text in read(ROOT / FOLDER).items()
        if file.endswith(".json")
        and (file.startswith(f"{unit}/") or (not unit and "/" not in file))
    }


def one_zone() -> Templates:
    """README's example: what the lab deploys, with a larger queue."""
    templates = templates_of("lab")
    (volume,) = [
        resource
        for resource in templates["lab/MailHosts.json"]["Resources"].values()
        if resource["Type"] == "AWS::EC2::Volume"
    ]
    volume["Properties"]["Size"] = 20
    return templates


def test_the_readme_and_the_price_file_agree() -> None:
    rows = re.findall(
        r"^\| (.+?) \| \**(\d+\.\d\d)\** \|$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE
    )
    readme = {what.strip("*"): Decimal(usd) for what, usd in rows}
    lines = {
        line.what: line.number * (line.unit or Decimal())
        for line in Prices().cost(one_zone()).lines
    }
    parts = {
        "NAT gateway": ["AWS::EC2::NatGateway"],
        "public IPv4": ["public IPv4 address"],
        "t3.small": ["t3.small host"],
        "volumes": ["GiB of gp3"],
        "five KMS keys": ["AWS::KMS::Key", "AWS::SecretsManager::Secret"],
        "CloudWatch": ["CloudWatch metric", "metric with an alarm", "AWS::CloudWatch::Dashboard"],
        "fixed": list(lines),
    }
    assert sorted(what for group in list(parts.values())[:-1] for what in group) == sorted(lines)
    for begins, group in parts.items():
        (told,) = [usd for what, usd in readme.items() if what.startswith(begins)]
        assert round(sum(lines[what] for what in group), 2) == told, begins


def test_the_capacity_page_and_the_price_file_agree() -> None:
    prices = Prices()
    fixed = prices.cost(one_zone()).total
    page = (ROOT / "docs/capacity.md").read_text("utf-8")
    further, variable = map(
        Decimal, re.findall(r"(\d+\.\d\d) for each further zone, and (\d+\.\d\d)\n", page)[0]
    )
    assert variable == Decimal("6.75") + Decimal("1.20")  # the README's
    by_the_hour = sum(
        line.unit or Decimal()
        for line in prices.cost(one_zone()).lines
        if line.what in ("AWS::EC2::NatGateway", "public IPv4 address", "t3.small host")
    )
    gibibytes = 8 + 20
    assert further == round(by_the_hour + gibibytes * Decimal("0.08") + 2 * Decimal("0.10"), 2)
    rows = re.findall(r"^\| ([\d,]+) \| .*? \| (\d) \| (\d+) \| ([\d.]+) \| 100 \|$", page, re.M)
    assert len(rows) == 5
    for messages, zones, told, told_for_a_million in rows:
        millions = Decimal(messages.replace(",", "")) / 1_000_000
        usd = fixed + (int(zones) - 1) * further + millions * variable
        assert round(usd) == int(told)
        digits = len(told_for_a_million.partition(".")[2])
        assert round(usd / millions, digits) == Decimal(told_for_a_million)


@pytest.mark.parametrize(
    "unit", ["", *sorted(path.stem for path in (ROOT / "environments").glob("*.toml"))]
)
def test_the_price_of_everything_that_is_deployed_is_known_or_depends_on_use(unit: str) -> None:
    templates = templates_of(unit)
    assert templates
    assert Prices().cost(templates).unknown == ()


def test_what_has_no_price_is_named() -> None:
    templates = one_zone()
    resources = templates["lab/MailHosts.json"]["Resources"]
    for resource in resources.values():
        if resource["Type"] == "AWS::EC2::LaunchTemplate":
            resource["Properties"]["LaunchTemplateData"]["InstanceType"] = "x9.huge"
    resources["Table"] = {"Type": "AWS::DynamoDB::Table", "Properties": {}}
    cost = Prices().cost(templates)
    assert cost.unknown == ("x9.huge host", "AWS::DynamoDB::Table")
    assert cost.total < Prices().cost(one_zone()).total


def test_an_address_of_ones_own_costs_the_same() -> None:
    templates = one_zone()
    identity, network = templates["lab/SendingIdentity.json"], templates["lab/Network.json"]
    for logical_id, resource in list(identity["Resources"].items()):
        if resource["Type"] == "AWS::EC2::EIP":
            del identity["Resources"][logical_id]
    for resource in network["Resources"].values():
        if resource["Type"] == "AWS::EC2::NatGateway":
            resource["Properties"]["AllocationId"] = "eipalloc-0123456789abcdef0"
    assert Prices().cost(templates).total == Prices().cost(one_zone()).total
