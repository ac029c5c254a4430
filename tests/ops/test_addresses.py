"""An address in use is never given up, and one that is given up leaves nothing behind."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ops import addresses
from ops.addresses import Address, Refused, findings, read, release
from ops.cli import app
from ops.deployment import CannotTell, Deployment, Stack
from ops.verdicts import Finding, Verdict
from tests.ops.deployed import Deployed, resource, write_environment

DOMAIN = "mail.example.com"
IN_USE, LEFT_OVER, FOREIGN = "203.0.113.10", "203.0.113.20", "203.0.113.30"
TAG = [{"Key": "postern:environment", "Value": "prod"}]
IN_SETTINGS = (
    (
        '# [elastic_ips.us-east-1a]\n# allocation_id = "eipalloc-0123456789abcdef0"\n'
        '# address = "203.0.113.10"\n'
    ),
    '[elastic_ips.us-east-1a]\nallocation_id = "eipalloc-00000020"\naddress = "203.0.113.20"\n',
)


def allocation_id(address: str) -> str:
    return f"eipalloc-000000{address.rpartition('.')[2]}"


class Ec2:
    """Three addresses: one in use, one left over with a PTR record, and somebody else's."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {
            IN_USE: {"AssociationId": "eipassoc-1", "Tags": TAG},
            LEFT_OVER: {"Tags": TAG},
            FOREIGN: {"Tags": [{"Key": "postern:environment", "Value": "other"}]},
        }
        self.names = {IN_USE: f"{DOMAIN}.", LEFT_OVER: f"{DOMAIN}."}
        self.updates: dict[str, dict[str, str]] = {}
        self.looks_until_gone = 3
        self.events: Any = {"Events": []}
        self.fails: dict[str, Exception] = {}

    def answers(self) -> dict[str, Any]:
        return {
            "ec2.describe_addresses": lambda: {
                "Addresses": [
                    {"PublicIp": ip, "AllocationId": allocation_id(ip), **item}
                    for ip, item in self.items.items()
                ]
            },
            "ec2.describe_nat_gateways": {
                "NatGateways": [
                    {
                        "NatGatewayId": "nat-1",
                        "State": "available",
                        "NatGatewayAddresses": [{"AllocationId": allocation_id(IN_USE)}],
                    }
                ]
            },
            "ec2.describe_addresses_attribute": self.attribute,
            "ec2.reset_address_attribute": self.reset,
            "ec2.release_address": self.release,
            "cloudtrail.lookup_events": self.trail,
        }

    def attribute(self, *, AllocationIds: list[str], **_: str) -> dict[str, Any]:  # noqa: N803
        (ip,) = (ip for ip in self.items if allocation_id(ip) == AllocationIds[0])
        if self.updates.get(ip, {}).get("Status") == "PENDING":
            self.looks_until_gone -= 1
            if self.looks_until_gone <= 0:
                del self.updates[ip], self.names[ip]
        found: dict[str, Any] = {"PublicIp": ip}
        if ip in self.names:
            found["PtrRecord"] = self.names[ip]
        if ip in self.updates:
            found["PtrRecordUpdate"] = self.updates[ip]
        return {"Addresses": [found]}

    def reset(self, *, AllocationId: str, Attribute: str) -> dict[str, Any]:  # noqa: N803
        assert Attribute == "domain-name"
        self._fail("reset")
        (ip,) = (ip for ip in self.items if allocation_id(ip) == AllocationId)
        self.updates[ip] = {"Status": "PENDING", "Value": ""}
        return {}

    def release(self, *, AllocationId: str) -> dict[str, Any]:  # noqa: N803
        self._fail("release")
        (ip,) = (ip for ip in self.items if allocation_id(ip) == AllocationId)
        if ip in self.names:
            raise CannotTell("AWS did not answer ec2:ReleaseAddress: InvalidAddress.PtrSet")
        del self.items[ip]
        return {}

    def trail(self, **_: Any) -> dict[str, Any]:
        self._fail("trail")
        answer: dict[str, Any] = self.events
        return answer

    def _fail(self, what: str) -> None:
        if what in self.fails:
            raise self.fails[what]


@pytest.fixture
def ec2() -> Ec2:
    return Ec2()


def deployed(
    tmp_path: Path,
    ec2: Ec2,
    *replacements: tuple[str, str],
    stacks: tuple[str, ...] = ("SendingIdentity", "Network"),
    status: str = "UPDATE_COMPLETE",
) -> Deployed:
    return Deployed(
        write_environment(tmp_path, *replacements),
        stacks={
            name: Stack(
                name=f"postern-prod-{name}",
                status=status,
                outputs={},
                resources=[resource("AWS::EC2::EIP", IN_USE)] if name == "SendingIdentity" else [],
            )
            for name in stacks
        },
        answers=ec2.answers(),
    )


def found_of(deployment: Deployed) -> dict[str, Finding]:
    known = read(deployment)
    return {
        address.address: finding
        for address, finding in zip(known, findings(deployment, known), strict=True)
    }


def test_it_tells_which_are_in_use_and_which_are_left_over(tmp_path: Path, ec2: Ec2) -> None:
    found = found_of(deployed(tmp_path, ec2))

    assert found[IN_USE].verdict is Verdict.FINE
    for words in (f"reverse DNS {DOMAIN};", "held by nat-1", "since 2026-01-02 or before"):
        assert words in found[IN_USE].evidence
    assert found[LEFT_OVER].verdict is Verdict.WRONG
    assert "left over" in found[LEFT_OVER].evidence
    assert "age could not be told" in found[LEFT_OVER].evidence
    assert "3.65 a month" in found[LEFT_OVER].remedy
    assert f"postern addresses release {LEFT_OVER} --environment prod" in found[LEFT_OVER].remedy
    assert FOREIGN not in found


def test_cloudtrail_tells_the_age_that_ec2_does_not(tmp_path: Path, ec2: Ec2) -> None:
    answer = {"responseElements": {"allocationId": allocation_id(LEFT_OVER)}}
    others = [{"CloudTrailEvent": json.dumps({"responseElements": None})}]
    when = datetime(2026, 10, 3, 4, 5, tzinfo=UTC)
    ec2.events = {"Events": [*others, {"EventTime": when, "CloudTrailEvent": json.dumps(answer)}]}
    assert "since 2026-10-03 (CloudTrail)" in found_of(deployed(tmp_path, ec2))[LEFT_OVER].evidence


def test_a_trail_that_may_not_be_read_hides_nothing_else(tmp_path: Path, ec2: Ec2) -> None:
    ec2.fails["trail"] = CannotTell("AccessDenied")
    found = found_of(deployed(tmp_path, ec2))
    assert "age could not be told" in found[LEFT_OVER].evidence
    assert len(found) == 2


def test_a_wrong_name_and_an_idle_address_of_ours_are_faults(tmp_path: Path, ec2: Ec2) -> None:
    del ec2.names[IN_USE]
    finding = found_of(deployed(tmp_path, ec2))[IN_USE]
    assert (finding.verdict, "must be mail.example.com" in finding.remedy) == (Verdict.WRONG, True)

    ec2 = Ec2()
    del ec2.items[IN_USE]["AssociationId"]
    idle = deployed(tmp_path, ec2)
    idle.answers["ec2.describe_nat_gateways"] = {"NatGateways": []}
    assert "No mail leaves from it" in found_of(idle)[IN_USE].remedy
    # Reserved ahead, while AWS looks at the port 25 request.
    ahead = deployed(tmp_path, ec2, stacks=("SendingIdentity",))
    ahead.answers["ec2.describe_nat_gateways"] = {"NatGateways": []}
    assert found_of(ahead)[IN_USE].verdict is Verdict.FINE


def test_without_any_there_is_nothing_wrong(tmp_path: Path, ec2: Ec2) -> None:
    ec2.items = {}
    deployment = deployed(tmp_path, ec2, stacks=())
    (finding,) = findings(deployment, read(deployment))
    assert finding.verdict is Verdict.FINE


# Releasing


def let_go(deployment: Deployed, wanted: str = LEFT_OVER, **options: Any) -> Address:
    options = {"confirm": lambda _: True, "pause": lambda _: None, **options}
    return release(deployment, wanted, **options)


@pytest.mark.parametrize("wanted", [LEFT_OVER, allocation_id(LEFT_OVER)])
def test_it_resets_the_name_waits_and_releases(tmp_path: Path, ec2: Ec2, wanted: str) -> None:
    deployment = deployed(tmp_path, ec2)
    pauses: list[float] = []

    let_go(deployment, wanted, pause=pauses.append)

    assert set(ec2.items) == {IN_USE, FOREIGN}
    changes = [name for name, _ in deployment.calls if "describe" not in name]
    assert changes[-2:] == ["ec2.reset_address_attribute", "ec2.release_address"]
    assert pauses == [addresses.POLL_SECONDS] * 2


def test_without_a_name_there_is_nothing_to_wait_for(tmp_path: Path, ec2: Ec2) -> None:
    del ec2.names[LEFT_OVER]
    deployment = deployed(tmp_path, ec2, stacks=())
    let_go(deployment)
    assert "ec2.reset_address_attribute" not in [name for name, _ in deployment.calls]
    assert LEFT_OVER not in ec2.items


def test_it_stops_waiting_says_so_and_goes_on_the_next_time(tmp_path: Path, ec2: Ec2) -> None:
    ec2.looks_until_gone = 10_000
    with pytest.raises(CannotTell, match=r"(?s)PENDING.*still yours.*Run it again to go on"):
        let_go(deployed(tmp_path, ec2), seconds=20)
    assert LEFT_OVER in ec2.items

    ec2.looks_until_gone = 2
    again = deployed(tmp_path, ec2)
    let_go(again)
    assert "ec2.reset_address_attribute" not in [name for name, _ in again.calls]
    assert LEFT_OVER not in ec2.items


@pytest.mark.parametrize("step", ["reset", "release"])
def test_a_step_that_fails_leaves_a_state_that_is_told(tmp_path: Path, ec2: Ec2, step: str) -> None:
    ec2.fails[step] = CannotTell("AWS did not answer: RequestLimitExceeded")
    with pytest.raises(CannotTell, match=r"(?s)RequestLimitExceeded.*still yours.*Run it again"):
        let_go(deployed(tmp_path, ec2))

    del ec2.fails[step]
    let_go(deployed(tmp_path, ec2))
    assert LEFT_OVER not in ec2.items


def test_a_change_that_aws_refuses_is_told_with_its_reason(tmp_path: Path, ec2: Ec2) -> None:
    deployment = deployed(tmp_path, ec2)

    def reset(**_: str) -> dict[str, Any]:
        ec2.updates[LEFT_OVER] = {"Status": "FAILED", "Value": "", "Reason": "not today"}
        return {}

    deployment.answers["ec2.reset_address_attribute"] = reset
    with pytest.raises(CannotTell, match="FAILED: not today"):
        let_go(deployment)
    assert LEFT_OVER in ec2.items


def test_one_that_somebody_released_meanwhile_is_gone_too(tmp_path: Path, ec2: Ec2) -> None:
    ec2.fails["release"] = CannotTell("AWS did not answer: InvalidAllocationID.NotFound")
    let_go(deployed(tmp_path, ec2))


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (IN_USE, "is in postern-prod-SendingIdentity"),
        (FOREIGN, "was not made for this environment"),
        ("203.0.113.99", "released already, or mistyped"),
    ],
)
def test_it_refuses_what_is_in_use_or_not_ours(
    tmp_path: Path, ec2: Ec2, wanted: str, why: str
) -> None:
    deployment = deployed(tmp_path, ec2)
    with pytest.raises(Refused, match=why):
        let_go(deployment, wanted)
    assert len(ec2.items) == 3
    assert not {"ec2.reset_address_attribute", "ec2.release_address"} & {
        name for name, _ in deployment.calls
    }


def test_it_refuses_one_that_something_holds(tmp_path: Path, ec2: Ec2) -> None:
    ec2.items[LEFT_OVER]["AssociationId"] = "eipassoc-2"
    ec2.items[LEFT_OVER]["InstanceId"] = "i-somebodys"
    with pytest.raises(Refused, match="associated with i-somebodys"):
        let_go(deployed(tmp_path, ec2))


def test_it_refuses_one_that_the_settings_name(tmp_path: Path, ec2: Ec2) -> None:
    with pytest.raises(Refused, match=r"named under \[elastic_ips\]"):
        let_go(deployed(tmp_path, ec2, IN_SETTINGS, stacks=()))


def test_it_refuses_while_a_deployment_runs(tmp_path: Path, ec2: Ec2) -> None:
    with pytest.raises(Refused, match="UPDATE_IN_PROGRESS"):
        let_go(deployed(tmp_path, ec2, status="UPDATE_IN_PROGRESS"))


def test_a_person_who_says_no_keeps_it(tmp_path: Path, ec2: Ec2) -> None:
    with pytest.raises(Refused, match="was kept"):
        let_go(deployed(tmp_path, ec2), confirm=lambda _: False)
    assert LEFT_OVER in ec2.items
    assert LEFT_OVER in ec2.names


def test_the_command_ends_with_the_verdicts_status(
    tmp_path: Path, ec2: Ec2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Deployment, "load", lambda _name: deployed(tmp_path, ec2))
    monkeypatch.setattr(addresses, "POLL_SECONDS", 0.0)

    def run(*arguments: str, answer: str = "") -> tuple[int, str]:
        done = CliRunner().invoke(app, ["addresses", *arguments], input=answer)
        return done.exit_code, done.stdout

    environment = ("--environment", "prod")
    status, out = run(*environment, "--json")
    assert (status, json.loads(out)["verdict"]) == (1, "wrong")
    assert {a["address"] for a in json.loads(out)["addresses"]} == {IN_USE, LEFT_OVER}
    assert run("list", *environment, "--json") == (status, out)
    status, out = run("release", LEFT_OVER, *environment, "--json")
    assert (status, "--yes" in json.loads(out)["error"]) == (1, True)
    assert run("release", LEFT_OVER, *environment, answer="n\n")[0] == 1
    status, out = run("release", LEFT_OVER, *environment, "--json", "--yes")
    assert (status, json.loads(out)["released"]["address"]) == (0, LEFT_OVER)
    assert run("release", LEFT_OVER, *environment, "--yes")[0] == 1  # there is no such any more
    assert run(*environment, "--json")[0] == 0
