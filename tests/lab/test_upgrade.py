"""The previous release is updated to what is here, with mail in its queue and on its way.

It has a lab of its own, in which lab/releases' templates are deployed as on a fresh account;
conftest.py puts this file first, so that it is gone when the others start theirs.
"""

from __future__ import annotations

import hashlib
import shutil
import socket
import struct
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.faults.ledger import Account
from lab.faults.trial import Trial
from lab.internet.addresses import SINKHOLE
from lab.internet.verdict import Verdict, faults
from lab.lab import Lab
from lab.network import INTERNET
from lab.release import Release, previous_release, templates
from tests.lab.conftest import a_new_lab, send_and_judge

pytestmark = pytest.mark.lab

MESSAGES = 200
DEFERRED = 0.2
"""The share of the messages that the receiver puts off before the update."""
SUBMISSION_SECONDS = 120.0
"""Longer than the update lets the old host live, so that it is submitted to until its end."""
ANSWER_SECONDS = 10.0
"""How long the receiver then takes for each message: so long is one on its way."""

# The same whether or not the release's user data differs from that of what is here: the host has to
# be replaced.
EXTRA_USER_DATA = "#!/bin/sh\necho the application is updated as well\n"


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The old host when it was last seen before EC2 ended it."""

    accepted: int
    """Messages that it had taken until then."""
    queued: int
    """Those that the receiver did not have, on their way or not."""
    on_their_way: int
    """Connections to the receiver."""


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """What was seen before, during and after one update."""

    release: Release
    deployed_before: Mapping[str, Any]
    deployed_after: Mapping[str, Any]
    """The templates that CloudFormation had, by stack."""
    here: Mapping[str, Any]
    """The templates that are to be there at the end."""
    statuses: Mapping[str, str]
    hosts: tuple[str, str]
    lasting_before: Mapping[str, Any]
    lasting_after: Mapping[str, Any]
    old_hosts_end: Moment
    account: Account
    verdicts: Mapping[str, Verdict]


@pytest.fixture(scope="module")
def upgrade(tmp_path_factory: pytest.TempPathFactory) -> Upgrade:
    release = previous_release()
    # A copy: the command line writes its locks into an assembly.
    assembly = shutil.copytree(release.assembly, tmp_path_factory.mktemp("release") / "cdk.out")
    with a_new_lab() as lab:
        lab.deploy(app=assembly)
        deployed_before, lasting_before = deployed(lab), lasting(lab)
        (old,) = lab.instance_ids

        account, old_hosts_end = update_under_mail(lab, old)

        (new,) = lab.instance_ids
        return Upgrade(
            release=release,
            deployed_before=deployed_before,
            deployed_after=deployed(lab),
            here=templates(lab.variant() / "cdk.out"),
            statuses=statuses(lab),
            hosts=(old, new),
            lasting_before=lasting_before,
            lasting_after=lasting(lab),
            old_hosts_end=old_hosts_end,
            account=account,
            verdicts=send_and_judge(lab),
        )


def update_under_mail(lab: Lab, old: str) -> tuple[Account, Moment]:
    lab.sinkhole("defer-at-rcpt")
    trial = Trial(lab, messages=MESSAGES, seconds=SUBMISSION_SECONDS)
    with trial.stream() as stream, ThreadPoolExecutor() as executor:
        stream.wait_until(share=DEFERRED)
        trial.wait_until_tried()
        lab.sinkhole("accept", delay_seconds=ANSWER_SECONDS)
        update = executor.submit(lab.deploy_variant, extra_user_data=EXTRA_USER_DATA)
        moment = last_moment(trial, old, update)
        update.result()
        lab.sinkhole("accept")
        trial.repaired()
        stream.seconds = 0
        stream.go_on()
        trial.flush()
    account, _ = trial.settled()
    return account, moment


def last_moment(trial: Trial, host: str, update: Future[None]) -> Moment:
    """What the host was doing when EC2 last let it run, seen from outside.

    A command on a host that is being shut down might never return: see `Stream`.
    """
    ec2 = trial.lab.cloud.client("ec2")
    moment = None
    while not update.done():
        on_their_way = connections_to_the_receiver(trial.lab)
        account = trial.account()
        (reservation,) = ec2.describe_instances(InstanceIds=[host])["Reservations"]
        if reservation["Instances"][0]["State"]["Name"] != "running":
            break
        moment = Moment(
            accepted=account.accepted, queued=account.lost, on_their_way=len(on_their_way)
        )
        time.sleep(0.2)
    assert moment is not None
    return moment


def connections_to_the_receiver(lab: Lab) -> list[str]:
    """Those that are established (state 01) to its port 25, as its kernel has them."""
    (address,) = struct.unpack("=L", socket.inet_aton(SINKHOLE))
    local = f"{address:08X}:{25:04X}"
    with lab.inside(INTERNET):
        lines = Path("/proc/thread-self/net/tcp").read_text(encoding="ascii").splitlines()
    return [line for line in lines[1:] if line.split()[1] == local and line.split()[3] == "01"]


def deployed(lab: Lab) -> dict[str, Any]:
    """Each stack's template as CloudFormation has it."""
    cloudformation = lab.cloud.client("cloudformation")
    return {
        stack: cloudformation.get_template(StackName=stack)["TemplateBody"]
        for stack in statuses(lab)
    }


def statuses(lab: Lab) -> dict[str, str]:
    stacks = lab.cloud.client("cloudformation").describe_stacks()["Stacks"]
    return {
        stack["StackName"]: stack["StackStatus"]
        for stack in stacks
        if stack["StackName"].startswith("postern-")
    }


def lasting(lab: Lab) -> dict[str, Any]:
    """What a receiver or a message waits to find again, by what it is."""
    ec2, route53 = lab.cloud.client("ec2"), lab.cloud.client("route53")
    secrets = lab.cloud.client("secretsmanager")
    found: dict[str, Any] = {"queue volume": lab.queue_volume().volume_id}
    for address in ec2.describe_addresses_attribute(Attribute="domain-name")["Addresses"]:
        found[f"address {address['AllocationId']}"] = (address["PublicIp"], address["PtrRecord"])
    for secret in secrets.list_secrets()["SecretList"]:
        value = secrets.get_secret_value(SecretId=secret["ARN"])["SecretString"]
        found[f"secret {secret['ARN']}"] = hashlib.sha256(value.encode()).hexdigest()
    records = route53.list_resource_record_sets(HostedZoneId=lab.environment.hosted_zone.id)
    for record in records["ResourceRecordSets"]:
        if record["Name"].endswith(f"{lab.environment.sending_domain}."):
            # Not for how long it may be remembered.
            found[f"{record['Type']} {record['Name']}"] = record["ResourceRecords"]
    return found


def of_kind(found: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name.startswith(kind)}


def test_what_is_updated_is_what_was_released(upgrade: Upgrade) -> None:
    assert len(upgrade.deployed_before) >= 4
    assert upgrade.deployed_before == upgrade.release.templates()


def test_the_update_ends_with_the_templates_that_are_here(upgrade: Upgrade) -> None:
    assert upgrade.deployed_after == upgrade.here
    assert upgrade.deployed_after != upgrade.deployed_before
    changed = {
        stack for stack, body in upgrade.here.items() if body != upgrade.deployed_before.get(stack)
    }
    done = {stack: status for stack, status in upgrade.statuses.items() if stack in changed}
    assert done["postern-lab-MailHosts"] == "UPDATE_COMPLETE"
    assert set(done.values()) <= {"UPDATE_COMPLETE", "CREATE_COMPLETE"}


def test_the_update_comes_over_mail_in_the_queue_and_on_its_way(upgrade: Upgrade) -> None:
    old, new = upgrade.hosts
    moment = upgrade.old_hosts_end
    assert old != new
    assert moment.accepted < MESSAGES  # submission went on on the new host
    assert moment.on_their_way >= 3
    assert moment.queued - moment.on_their_way >= MESSAGES * DEFERRED * 0.9


def test_no_message_is_lost_or_left_unsigned(upgrade: Upgrade) -> None:
    account = upgrade.account
    assert (account.accepted, account.lost, account.unsigned) == (MESSAGES, 0, 0)
    assert (account.delivered, account.returned) == (MESSAGES, 0)
    # Only what was on its way when the host ended can arrive twice: the receiver has it, and nobody
    # is left who heard so.
    assert account.duplicated <= upgrade.old_hosts_end.on_their_way


def test_addresses_reverse_dns_records_key_and_queue_volume_stay(upgrade: Upgrade) -> None:
    before, after = upgrade.lasting_before, upgrade.lasting_after
    kinds = {name.split()[0] for name in before}
    assert kinds == {"queue", "address", "secret", "A", "TXT"}
    assert len(of_kind(before, "TXT")) >= 3  # SPF, DKIM, DMARC
    assert {name: after.get(name) for name in before} == before  # there may be more than before
    assert of_kind(after, "address") == of_kind(before, "address")


def test_mail_of_the_new_host_passes_every_check(upgrade: Upgrade) -> None:
    assert [faults(verdict) for verdict in upgrade.verdicts.values()] == [{}, {}]
