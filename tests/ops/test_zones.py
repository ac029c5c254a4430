"""`postern zones`: a zone with mail in its queue is not given up in silence."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ops import cli, run_command, zones
from ops.deployment import CannotTell, Deployment, MailHost, Stack
from ops.verdicts import Verdict
from tests.ops.deployed import LONG_AGO, Deployed, resource, write_environment

HOSTS = {
    f"us-east-1{letter}": MailHost(
        instance_id=f"i-{letter}", zone=f"us-east-1{letter}", launched=LONG_AGO
    )
    for letter in "abc"
}
TWO_ZONES = 'availability_zones = ["us-east-1a", "us-east-1b"]'
THREE_ZONES = 'availability_zones = ["us-east-1a", "us-east-1b", "us-east-1c"]'


class Zones:
    """Three deployed zones, whose hosts answer as `waiting`, `closed` and `silent` say.

    waiting: how many messages at each look, the last number for all later ones.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *, listed: str) -> None:
        self.waiting: dict[str, list[int]] = {}
        self.undeliverable: dict[str, int] = {}
        self.closed: set[str] = set()
        self.silent: set[str] = set()
        self.ran: list[tuple[str, str]] = []
        self.volumes = [volume(f"vol-{host.instance_id}", host) for host in HOSTS.values()]
        groups = [
            {"AutoScalingGroupName": f"group-{zone}", "AvailabilityZones": [zone]} for zone in HOSTS
        ]
        stack = Stack(
            name="postern-prod-MailHosts",
            status="UPDATE_COMPLETE",
            outputs={},
            resources=[
                *(resource("AWS::AutoScaling::AutoScalingGroup", f"group-{z}") for z in HOSTS),
                *(resource("AWS::EC2::Volume", v["VolumeId"]) for v in self.volumes),
            ],
        )
        changes = [] if listed == TWO_ZONES else [(TWO_ZONES, listed)]
        self.deployment = Deployed(
            write_environment(folder, *changes),
            stacks={"MailHosts": stack},
            hosts=list(HOSTS.values()),
            answers={
                "autoscaling.describe_auto_scaling_groups": {"AutoScalingGroups": groups},
                "ec2.describe_volumes": self._describe_volumes,
                "ec2.create_tags": {},
                "ec2.delete_tags": {},
            },
        )
        monkeypatch.setattr(Deployment, "load", lambda _name: self.deployment)
        monkeypatch.setattr(run_command, "run_json", self._run)
        monkeypatch.setattr(zones, "POLL_SECONDS", 0.01)

    def _describe_volumes(self, Filters: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        (chosen,) = Filters
        if chosen["Name"] == "tag-key":
            return {"Volumes": [one for one in self.volumes if one["Tags"]]}
        assert chosen["Name"] == "attachment.instance-id"
        return {
            "Volumes": [
                one
                for one in self.volumes
                if any(a["InstanceId"] in chosen["Values"] for a in one["Attachments"])
            ]
        }

    def _run(
        self, _deployment: Deployment, instance_id: str, argv: Sequence[str], *, seconds: int = 60
    ) -> dict[str, Any]:
        assert seconds > 0
        zone = next(zone for zone, host in HOSTS.items() if host.instance_id == instance_id)
        if zone in self.silent:
            raise CannotTell(f"{instance_id} does not answer.")
        self.ran.append((zone, " ".join(word.rpartition("/")[2] for word in argv[:2])))
        if argv[0] == zones.SUBMISSION:
            if argv[1] == "close":
                self.closed.add(zone)
            if argv[1] == "open":
                self.closed.discard(zone)
            return {"closed": zone in self.closed, "since": None}
        if argv[0] == zones.REPORT:
            return {"undeliverable_bytes": self.undeliverable.get(zone, 0)}
        if argv[1] == "retry":
            return {"done": [], "not_done": []}
        left = self.waiting.get(zone, [0])
        total = left.pop(0) if len(left) > 1 else left[0]
        group = {
            "destination": "example.net",
            "reason": "450 4.2.1 Mailbox busy",
            "messages": total,
            "oldest_age_seconds": 60,
        }
        return {
            "time": 0,
            "total": total,
            "groups": [group] if total else [],
            "groups_left_out": 0,
            "messages": [],
            "messages_left_out": total,
        }

    def tagged(self) -> list[tuple[str, str]]:
        """What was done to tags: the method, and the volume."""
        return [
            (name.removeprefix("ec2."), arguments["Resources"][0])
            for name, arguments in self.deployment.calls
            if name.endswith("_tags")
        ]

    def postern(self, *argv: str, says: str = "") -> Result:
        result = CliRunner().invoke(
            cli.app, ["zones", *argv, "--environment", "prod"], input=says, env={"COLUMNS": "250"}
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result


MakeZones = Callable[..., Zones]


def volume(
    volume_id: str, host: MailHost | None, *, zone: str = "", drained: str = "", root: bool = False
) -> dict[str, Any]:
    zone = zone or (host.zone if host else "")
    tags = [{"Key": zones.CELL_TAG, "Value": f"prod/{zone}"}]
    if drained:
        tags.append({"Key": zones.DRAINED_TAG, "Value": drained})
    device = "/dev/xvda" if root else zones.QUEUE_DEVICE
    attachment = {"InstanceId": host.instance_id, "Device": device} if host else None
    return {
        "VolumeId": volume_id,
        "Size": 20,
        "State": "in-use" if host else "available",
        "Tags": tags,
        "Attachments": [attachment] if attachment else [],
    }


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeZones:
    return lambda listed=THREE_ZONES: Zones(monkeypatch, tmp_path, listed=listed)


def test_a_zone_is_drained_when_its_host_takes_no_mail_and_its_queue_has_run_empty(
    make: MakeZones,
) -> None:
    there = make()
    there.waiting["us-east-1c"] = [3, 2, 1, 0]

    done = there.postern("drain", "us-east-1c", "--yes")

    assert done.exit_code == 0
    assert there.closed == {"us-east-1c"}
    # Closed before anybody looks, or mail could come after the look.
    assert [what for _, what in there.ran][:2] == [
        "postern-submission close",
        "postern-queue list",
    ]
    assert {zone for zone, _ in there.ran} == {"us-east-1c"}
    assert there.tagged() == [("create_tags", "vol-i-c")]


@pytest.mark.parametrize(
    ("waiting", "undeliverable", "told"),
    [(2, 0, "450 4.2.1 Mailbox busy"), (0, 700, "undeliverable-mail.md")],
)
def test_mail_that_is_left_is_told_and_the_volume_does_not_count_as_drained(
    make: MakeZones, waiting: int, undeliverable: int, told: str
) -> None:
    there = make()
    there.waiting["us-east-1c"] = [waiting]
    there.undeliverable["us-east-1c"] = undeliverable

    done = there.postern("drain", "us-east-1c", "--yes", "--wait", "0")

    assert done.exit_code == 1
    assert told in done.stdout
    assert there.tagged() == [("delete_tags", "vol-i-c")]


def test_the_queue_volume_is_told_from_the_root_volume(make: MakeZones) -> None:
    there = make()
    there.volumes.insert(0, volume("vol-root", HOSTS["us-east-1c"], root=True))
    assert there.postern("drain", "us-east-1c", "--yes").exit_code == 0
    assert there.tagged() == [("create_tags", "vol-i-c")]


def test_who_drains_is_told_where_mail_can_still_be_submitted(make: MakeZones) -> None:
    there = make()
    done = there.postern("drain", "us-east-1c", says="n\n")
    assert done.exit_code == 1
    assert "Mail is submitted in us-east-1a, us-east-1b only" in done.stdout
    assert there.ran == []

    there.deployment._hosts = [HOSTS["us-east-1c"]]
    assert "nobody can submit mail" in there.postern("drain", "us-east-1c", says="n\n").stdout
    assert there.ran == []


def test_a_host_that_does_not_answer_is_not_drained(make: MakeZones) -> None:
    there = make()
    there.silent.add("us-east-1c")
    assert there.postern("drain", "us-east-1c", "--yes").exit_code == 2
    assert there.tagged() == []


def test_an_opened_zone_takes_mail_and_no_volume_says_otherwise(make: MakeZones) -> None:
    there = make()
    there.closed.add("us-east-1c")
    assert there.postern("open", "us-east-1c").exit_code == 0
    assert there.closed == set()
    assert there.tagged() == [("delete_tags", "vol-i-c")]


@pytest.mark.parametrize(
    ("closed", "waiting", "silent", "status"),
    [(True, 0, False, 0), (False, 0, False, 1), (True, 1, False, 1), (True, 0, True, 2)],
)
def test_a_zone_may_leave_when_it_is_closed_and_empty(
    make: MakeZones, closed: bool, waiting: int, silent: bool, status: int
) -> None:
    there = make(TWO_ZONES)
    there.closed |= {"us-east-1c"} if closed else set()
    there.silent |= {"us-east-1c"} if silent else set()
    there.waiting["us-east-1c"] = [waiting]
    assert there.postern("leaving").exit_code == status


def test_a_zone_without_a_host_may_not_leave_unseen(make: MakeZones) -> None:
    there = make(TWO_ZONES)
    there.deployment._hosts = [HOSTS["us-east-1a"], HOSTS["us-east-1b"]]
    done = there.postern("leaving", "--json")
    assert done.exit_code == 2
    (found,) = json.loads(done.stdout)["findings"]
    assert found["check"] == "Zone us-east-1c, to be removed"


def test_nothing_leaves_from_a_file_that_has_every_deployed_zone(make: MakeZones) -> None:
    there = make()
    assert there.postern("leaving").exit_code == 0
    assert there.ran == []


def test_a_closed_zone_that_stays_is_wrong_in_the_list(make: MakeZones) -> None:
    there = make()
    assert there.postern("list").exit_code == 0
    there.closed.add("us-east-1b")
    done = there.postern("--json")
    assert done.exit_code == 1
    found = {one["check"]: one for one in json.loads(done.stdout)["findings"]}
    assert found["Zone us-east-1b"]["verdict"] == Verdict.WRONG
    assert "postern zones open us-east-1b" in found["Zone us-east-1b"]["remedy"]
    assert found["Zone us-east-1a"]["verdict"] == Verdict.FINE


@pytest.mark.parametrize("drained", ["", "2026-11-20T10:00:00Z"])
def test_a_volume_that_was_left_behind_is_wrong_unless_it_was_drained(
    make: MakeZones, drained: str
) -> None:
    there = make()
    there.volumes += [
        volume("vol-left", None, zone="us-east-1d", drained=drained),
        volume("vol-other", None, zone="us-east-1d")
        | {"Tags": [{"Key": zones.CELL_TAG, "Value": "prod-eu/x"}]},
    ]
    (found,) = zones.left_over_findings(there.deployment)
    assert found.check == "Queue volume vol-left"
    assert "aws ec2 delete-volume --volume-id vol-left" in found.remedy
    if drained:
        assert found.verdict is Verdict.FINE
        assert drained in found.evidence
    else:
        assert found.verdict is Verdict.WRONG
        assert '[queue_volumes.us-east-1d] volume_id = "vol-left"' in found.remedy


def test_a_volume_that_waits_for_its_next_host_was_not_left_behind(make: MakeZones) -> None:
    there = make()
    there.volumes[0] |= {"State": "available", "Attachments": []}
    (found,) = zones.left_over_findings(there.deployment)
    assert found.verdict is Verdict.FINE
