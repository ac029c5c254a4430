"""The lab's environment grows from one zone to three, loses two of them for a while, and goes back.

One is removed with mail in its queue, and gets it back. The tests are one story and run in this
order; the last one leaves the lab as the first one found it.
"""

from __future__ import annotations

import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.internet.addresses import SINKHOLE_NAME
from lab.internet.receivers.sinkhole import Transaction, Transactions
from lab.internet.verdict import faults
from lab.lab import ENVIRONMENT, Lab
from lab.places import PROJECT
from ops.zones import CELL_TAG
from tests.lab.conftest import RECIPIENTS, deploy_from
from tests.lab.laptop import postern, postern_json
from tests.lab.waiting import eventually

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("without_remains")]

A, B, C = ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
TRY_AGAIN = 75  # EX_TEMPFAIL
REFUSED = 7  # curl could not connect


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What stays the same, or not: hosts and queue volumes by zone, addresses, records."""

    hosts: Mapping[str, str]
    volumes: Mapping[str, str]
    reverse_dns: Mapping[str, str]
    """The name of each Elastic IP at EC2."""
    a_record: frozenset[str]
    spf: str


@dataclass(kw_only=True)
class Story:
    """The lab, the folder to deploy from, and every message that was accepted."""

    lab: Lab
    before: Deployed
    folder: Path
    transactions: Transactions
    sent: list[str] = field(default_factory=list)
    took: list[Transaction] = field(default_factory=list)

    def submit(self, zone: str, count: int = 3) -> list[str]:
        """The Message-IDs of new messages to the sinkhole, which the zone's host accepted."""
        domain = f"z{uuid.uuid4().hex[:8]}.sinkhole.example"
        new = [
            self.lab.send(to=[f"u{n}@{domain}"], subject="zones", text="x\n", host=zone)
            for n in range(count)
        ]
        self.sent += new
        return new

    def defer(self, zone: str) -> list[str]:
        """As `submit`, while the sinkhole defers: each was tried, and waits."""
        self.lab.sinkhole("defer-at-rcpt")
        new = self.submit(zone)
        untried = "grep --quiet ^N0 /var/spool/queue/mqueue/qf*"
        eventually(lambda: self.lab.run("bash", "-c", untried, host=zone).returncode)
        return new

    def retry(self, zone: str) -> None:
        done = self.lab.run("postern-queue", "retry", "--all", host=zone, timeout=180)
        assert done.returncode == 0, done.stderr

    def arrived(self) -> Counter[str]:
        """How often the sinkhole took each message."""
        self.took += [answer for answer in self.transactions.read() if answer.accepted]
        return Counter(answer.message_id for answer in self.took)

    def wait_for(self, *messages: str) -> None:
        eventually(
            lambda: set(messages) <= self.arrived().keys(),
            explain=lambda: f"{set(messages) - self.arrived().keys()} did not arrive",
        )


def deployed(lab: Lab) -> Deployed:
    ec2, route53 = lab.cloud.client("ec2"), lab.cloud.client("route53")
    hosts = {zone: host for host, zone in lab.hosts.items()}
    records = {
        (record["Name"], record["Type"]): [value["Value"] for value in record["ResourceRecords"]]
        for record in route53.list_resource_record_sets(
            HostedZoneId=lab.environment.hosted_zone.id
        )["ResourceRecordSets"]
        if "ResourceRecords" in record
    }
    queue_volumes = {
        attachment["InstanceId"]: volume["VolumeId"]
        for volume in ec2.describe_volumes()["Volumes"]
        if has_a_cell(volume)
        for attachment in volume["Attachments"]
    }
    name = f"{lab.environment.sending_domain}."
    (spf,) = records[name, "TXT"]
    return Deployed(
        hosts=hosts,
        volumes={zone: queue_volumes[host] for zone, host in hosts.items()},
        reverse_dns={
            address["PublicIp"]: address["PtrRecord"]
            for address in ec2.describe_addresses_attribute(Attribute="domain-name")["Addresses"]
        },
        a_record=frozenset(records[name, "A"]),
        spf=spf,
    )


def has_a_cell(volume: Mapping[str, Any]) -> bool:
    """Whether it is a queue volume, in use or left behind."""
    return any(tag["Key"] == CELL_TAG for tag in volume.get("Tags", []))


@pytest.fixture(scope="module")
def story(lab: Lab) -> Iterator[Story]:
    """The lab grown to three zones, while mail waited in the first one's queue."""
    (host,) = lab.instance_ids
    assert lab.hosts[host] == A
    transactions = Transactions(lab.places.received / SINKHOLE_NAME)
    story = Story(
        lab=lab, before=deployed(lab), folder=lab.variant(zones=3), transactions=transactions
    )
    story.defer(A)
    try:
        lab.deploy(app=story.folder)
        lab.sinkhole("accept")
        yield story
    finally:
        lab.sinkhole("accept")
        if len(lab.hosts) > 1:  # a test failed: without ceremony
            deploy_from(lab, "MailHosts", "Network")
        ec2 = lab.cloud.client("ec2")
        for volume in ec2.describe_volumes()["Volumes"]:
            if volume["State"] == "available" and has_a_cell(volume):
                ec2.delete_volume(VolumeId=volume["VolumeId"])


def findings(story: Story, *command: str) -> dict[str, dict[str, Any]]:
    """What a command of the operator's finds, by the check."""
    _, document = postern_json(story.lab, *command, folder=story.folder)
    return {found["check"]: found for found in document["findings"]}


def test_growing_leaves_the_first_zone_as_it_was(story: Story) -> None:
    before, now = story.before, deployed(story.lab)
    assert now.hosts[A] == before.hosts[A]
    assert now.volumes[A] == before.volumes[A]
    assert before.reverse_dns.items() < now.reverse_dns.items()
    story.retry(A)
    story.wait_for(*story.sent)


def test_each_zone_has_a_host_an_address_and_a_queue_that_dns_names(story: Story) -> None:
    now = deployed(story.lab)
    assert tuple(now.hosts) == ZONES
    assert len(set(now.volumes.values())) == len(now.reverse_dns) == len(now.a_record) == 3
    assert set(now.reverse_dns) == now.a_record
    assert set(now.reverse_dns.values()) == {f"{story.lab.environment.sending_domain}."}
    assert sorted(now.spf.strip('"').split()) == sorted(
        ["v=spf1", *(f"ip4:{address}" for address in now.a_record), "-all"]
    )


def test_mail_of_each_host_passes_every_check_from_an_address_of_its_own(story: Story) -> None:
    lab = story.lab
    sent = [lab.send(to=RECIPIENTS, subject="z", text="x\n", host=zone) for zone in ZONES]
    verdicts = [verdict for one in sent for verdict in lab.wait_for(message_id=one)]
    assert [faults(verdict) for verdict in verdicts] == [{}] * 6
    assert len({verdict.address for verdict in verdicts}) == 3


def test_the_doctor_sees_three_of_each_and_all_is_fine(story: Story) -> None:
    found = findings(story, "doctor")
    wrong = {
        name: f"{one['verdict']}: {one['evidence']}"
        for name, one in found.items()
        if one["verdict"] != "fine" and not name.startswith("Alarm")
    }
    assert wrong == {}
    for host, zone in story.lab.hosts.items():
        assert {f"{zone} {host}: port 25", f"{zone} {host}: submission"} <= found.keys()
    for address in deployed(story.lab).a_record:
        assert {f"Reverse DNS of {address}", f"SPF of {address}"} <= found.keys()
    assert sum(name.startswith("NAT gateway nat-") for name in found) == 3


def test_without_one_host_and_one_zone_the_third_goes_on_and_nothing_of_theirs_is_lost(
    story: Story,
) -> None:
    lab = story.lab
    waiting = {zone: story.defer(zone) for zone in ZONES}
    crashed = lab.crash_host(C)  # its successor starts by itself
    with lab.lost_zone(B) as lost:
        lab.sinkhole("accept")
        new = story.submit(A)
        story.retry(A)
        story.wait_for(*waiting[A], *new)
        assert not {*waiting[B], *waiting[C]} & story.arrived().keys()
        assert B not in lab.hosts.values()
    for zone, old in ((C, crashed), (B, lost)):
        lab.wait_for_host(zone=zone, other_than=old)
        story.retry(zone)
    story.wait_for(*story.sent)


def test_mail_on_a_removed_zones_volume_is_sent_when_the_zone_is_back(story: Story) -> None:
    """`make shrink` would not have removed it; who deploys without it can."""
    lab = story.lab
    left = deployed(lab).volumes[C]
    waiting = story.defer(C)
    lab.variant(zones=2)
    deploy_from(lab, "MailHosts", "Network", app=story.folder)
    assert C not in lab.hosts.values()
    lab.sinkhole("accept")

    found = findings(story, "doctor")[f"Queue volume {left}"]

    assert found["verdict"] == "wrong"
    assert f'[queue_volumes.{C}] volume_id = "{left}"' in found["remedy"]
    lab.variant(zones=3)
    with (story.folder / "environments" / ENVIRONMENT.name).open("a") as file:
        file.write(f'\n[queue_volumes.{C}]\nvolume_id = "{left}"\n')
    lab.deploy(app=story.folder)
    assert deployed(lab).volumes[C] == left
    story.retry(C)
    story.wait_for(*waiting)


def test_a_zone_with_mail_in_its_queue_is_not_drained(story: Story) -> None:
    lab = story.lab
    (story.folder / "environments" / ENVIRONMENT.name).write_bytes(ENVIRONMENT.read_bytes())
    waiting = story.defer(B)

    status, document = postern_json(
        lab, "zones", "drain", B, "--wait=0", "--yes", folder=story.folder
    )

    assert (status, document["waiting"]) == (1, len(waiting))
    assert postern(lab, "zones", "leaving", folder=story.folder).returncode == 1
    # It takes no more, by neither way, and the others do.
    refused = lab.run("sendmail", "-t", "-oi", host=B, input=b"To: a@sinkhole.example\n\nx\n")
    assert refused.returncode == TRY_AGAIN, refused.stderr
    connect = ("runuser", "-u", "nobody", "--", "curl", "-sS", "--max-time", "5")
    for port in (25, 587):
        told = lab.run(*connect, f"telnet://127.0.0.1:{port}", host=B)
        assert told.returncode == REFUSED, told.stdout + told.stderr
    lab.sinkhole("accept")
    story.wait_for(*story.submit(A))


def test_a_drained_zone_is_removed_while_mail_waits_in_the_one_that_stays(story: Story) -> None:
    lab = story.lab
    before = deployed(lab)
    with ThreadPoolExecutor() as executor:
        drained = list(
            executor.map(
                lambda zone: postern(lab, "zones", "drain", zone, "--yes", folder=story.folder),
                (B, C),
            )
        )
    assert [done.returncode for done in drained] == [0, 0], drained
    waiting = story.defer(A)

    shrink(story)

    now = deployed(lab)
    assert now.hosts == {A: story.before.hosts[A]}
    assert (now.reverse_dns, now.a_record, now.spf) == (
        story.before.reverse_dns,
        story.before.a_record,
        story.before.spf,
    )
    left = findings(story, "zones")
    for zone in (B, C):
        volume = left[f"Queue volume {before.volumes[zone]}"]
        assert volume["verdict"] == "fine"
        assert "it was empty at" in volume["evidence"]
    lab.sinkhole("accept")
    story.retry(A)
    story.wait_for(*waiting)


def shrink(story: Story) -> None:
    """`make shrink`, its commands as make would run them, in the folder of the lab's variant."""
    made = subprocess.run(
        ["make", "--dry-run", "shrink", f"ENV={story.lab.environment.name}"],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    commands = [line for line in made.splitlines() if line.startswith(("postern", "cdk", "rm "))]
    assert sum("deploy" in command for command in commands) == 3, made
    # An operator confirms at the terminal.
    approved = [c.replace(" deploy ", " deploy --require-approval=never ") for c in commands]
    path = f"{PROJECT}/.venv/bin:{story.lab.places.cdk.parent}"
    done = subprocess.run(
        story.lab.operator_command(
            *("env", f"CDK_HOME={story.folder}/cdk-home", "CDK_DISABLE_VERSION_CHECK=1"),
            *("CDK_DISABLE_CLI_TELEMETRY=true", "CDK_VALIDATION=false"),
            *("bash", "-euc", f"PATH={path}:$PATH; " + "\n".join(approved)),
        ),
        cwd=story.folder,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_every_message_arrived_once_and_signed(story: Story) -> None:
    arrived = story.arrived()
    assert len(story.sent) >= 20
    assert {one: arrived[one] for one in story.sent} == dict.fromkeys(story.sent, 1)
    signed = {answer.dkim for answer in story.took if answer.message_id in story.sent}
    assert signed == {"pass"}
