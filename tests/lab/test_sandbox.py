"""A sandbox is deployed beside the environment that it is of, sends mail, and goes again."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.internet.verdict import Verdict, faults
from lab.lab import Lab
from stacks.environment import SUFFIX_VARIABLE, Environment, load
from tests.lab.conftest import RECIPIENTS

pytestmark = pytest.mark.lab

SUFFIX = "anna"
STACKS = ("SendingIdentity", "Network", "MailHosts", "Monitoring")


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """An environment's stacks as CloudFormation has them, and what is outside them."""

    events: Mapping[str, tuple[str, ...]]
    """The ids of each stack's events."""
    resources: Mapping[tuple[str, str], str]
    """Each resource's physical id, by stack and logical id.

    Without metric filters: their names are within a log group.
    """
    metrics: frozenset[tuple[str, str]]
    """Namespace and name of the metrics that are counted from its log groups."""
    exports: frozenset[str]
    hosts: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What was seen before a sandbox came, while it was there, and after it was destroyed."""

    sandbox: Environment
    before: Deployed
    during: Deployed
    after: Deployed
    of_sandbox: Deployed
    of_sandbox_after: Deployed
    remaining: frozenset[str]
    """The queue volumes, addresses and secrets that came with it and stayed."""
    verdicts: Mapping[str, list[Verdict]]
    """On a message of each environment, sent while both were there, by sending domain."""


@pytest.fixture(scope="module")
def beside(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Beside:
    folder = in_another_zone(lab)
    home = tmp_path_factory.mktemp("cdk")
    file = folder / "environments" / lab.environment.file.name
    sandbox = load(file, suffix=SUFFIX)
    kept = lasting(lab)
    before = deployed(lab, lab.environment)
    try:
        cdk(lab, "deploy", "--require-approval=never", folder=folder, home=home)
        during, of_sandbox = deployed(lab, lab.environment), deployed(lab, sandbox)
        verdicts = {
            environment.sending_domain: sent(lab, environment, found)
            for environment, found in ((lab.environment, during), (sandbox, of_sandbox))
        }
    finally:
        cdk(lab, "destroy", "--force", folder=folder, home=home)
        after, of_sandbox_after = deployed(lab, lab.environment), deployed(lab, sandbox)
        remaining = lasting(lab) - kept
        for volume in remaining:  # the queue's, which nobody needs
            lab.cloud.client("ec2").delete_volume(VolumeId=volume)
    return Beside(
        sandbox=sandbox,
        before=before,
        during=during,
        after=after,
        of_sandbox=of_sandbox,
        of_sandbox_after=of_sandbox_after,
        remaining=frozenset(remaining),
        verdicts=verdicts,
    )


def in_another_zone(lab: Lab) -> Path:
    """A folder whose environment is the lab's, in the next zone: a zone of the lab has one host."""
    folder = lab.variant()
    file = folder / "environments" / lab.environment.file.name
    (zone,) = lab.environment.availability_zones
    file.write_text(file.read_text().replace(f'"{zone}"', f'"{lab.environment.region}b"'))
    return folder


def cdk(lab: Lab, action: str, *options: str, folder: Path, home: Path) -> None:
    """What a person types on the laptop, POSTERN_SUFFIX being set."""
    name = lab.environment.name
    done = subprocess.run(
        lab.operator_command(
            *("env", f"{SUFFIX_VARIABLE}={SUFFIX}", f"CDK_HOME={home}"),
            *("CDK_DISABLE_VERSION_CHECK=1", "CDK_DISABLE_CLI_TELEMETRY=true"),
            *("CDK_VALIDATION=false", str(lab.places.cdk)),
            *("--context", f"environment={name}", action, f"{name}-{SUFFIX}/*", *options),
            *("--no-color", "--no-notices", "--ci", "--progress=events"),
        ),
        cwd=folder,
        check=False,
        env=dict(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def sent(lab: Lab, environment: Environment, found: Deployed) -> list[Verdict]:
    """What the receivers say of a message from the environment's only host."""
    (host,) = found.hosts
    message_id = f"<{uuid.uuid4()}@{environment.sending_domain}>"
    sender = f"hello@{environment.sending_domain}"
    message = (
        f"From: {sender}\nTo: {', '.join(RECIPIENTS)}\nSubject: beside\nMessage-ID: {message_id}\n"
        "\nAn ordinary mail.\n"
    )
    subprocess.run(
        lab.host_command("sendmail", "-t", "-oi", "-f", sender, host=host),
        check=True,
        input=message.encode(),
        timeout=60,
    )
    return lab.wait_for(message_id=message_id)


def deployed(lab: Lab, environment: Environment) -> Deployed:
    cloudformation = lab.cloud.client("cloudformation")
    names = {f"postern-{environment.name}-{stack}" for stack in STACKS}
    stacks = {
        stack["StackName"]: stack["StackId"]
        for stack in cloudformation.describe_stacks()["Stacks"]
        if stack["StackName"] in names
    }
    resources = [
        resource
        for stack in stacks
        for resource in cloudformation.describe_stack_resources(StackName=stack)["StackResources"]
    ]
    groups = lab.cloud.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    own = {resource["PhysicalResourceId"] for resource in resources}
    return Deployed(
        events={
            stack: tuple(event.event_id for event in lab.cloud.stack_events(stack))
            for stack in stacks
        },
        resources={
            (resource["StackName"], resource["LogicalResourceId"]): resource["PhysicalResourceId"]
            for resource in resources
            if resource["ResourceType"] != "AWS::Logs::MetricFilter"
        },
        metrics=metrics(lab, own),
        exports=frozenset(
            export["Name"]
            for export in cloudformation.list_exports()["Exports"]
            if export["ExportingStackId"] in stacks.values()
        ),
        hosts=frozenset(
            instance["InstanceId"]
            for group in groups
            for instance in group["Instances"]
            if group["AutoScalingGroupName"] in own
        ),
    )


def metrics(lab: Lab, physical_ids: Collection[str]) -> frozenset[tuple[str, str]]:
    pages = lab.cloud.client("logs").get_paginator("describe_metric_filters").paginate()
    return frozenset(
        (transformation["metricNamespace"], transformation["metricName"])
        for page in pages
        for one in page["metricFilters"]
        for transformation in one["metricTransformations"]
        if one["logGroupName"] in physical_ids
    )


def lasting(lab: Lab) -> set[str]:
    """The ids of everything in the account that could outlive its stack."""
    ec2, logs = lab.cloud.client("ec2"), lab.cloud.client("logs")
    records = lab.cloud.client("route53").list_resource_record_sets(
        HostedZoneId=lab.environment.hosted_zone.id
    )
    return {
        *(volume["VolumeId"] for volume in ec2.describe_volumes()["Volumes"]),
        *(address["AllocationId"] for address in ec2.describe_addresses()["Addresses"]),
        *(s["ARN"] for s in lab.cloud.client("secretsmanager").list_secrets()["SecretList"]),
        *(group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]),
        *(f"{r['Name']} {r['Type']}" for r in records["ResourceRecordSets"]),
        *(role["RoleName"] for role in lab.cloud.client("iam").list_roles()["Roles"]),
    }


def test_the_sandbox_is_there_as_a_whole_with_names_of_its_own(beside: Beside) -> None:
    assert beside.sandbox.name == "lab-anna"
    assert beside.sandbox.sending_domain == "mail-anna.example.com"
    assert {stack.rpartition("-")[2] for stack in beside.of_sandbox.events} == set(STACKS)
    for ours, theirs in (
        (beside.of_sandbox.hosts, beside.during.hosts),
        (beside.of_sandbox.exports, beside.during.exports),
        (beside.of_sandbox.metrics, beside.during.metrics),
        (set(beside.of_sandbox.resources.values()), set(beside.during.resources.values())),
    ):
        assert ours
        assert theirs
        assert not ours & theirs


def test_it_touches_nothing_of_the_environment_beside_it(beside: Beside) -> None:
    assert len(beside.before.resources) > 50
    assert beside.during == beside.before
    assert beside.after == beside.before


def test_mail_of_both_passes_every_check(beside: Beside) -> None:
    assert len(beside.verdicts) == 2
    for verdicts in beside.verdicts.values():
        assert [faults(verdict) for verdict in verdicts] == [{}, {}]


def test_nothing_of_it_is_left_but_the_queue(beside: Beside) -> None:
    volumes = {
        physical for physical in beside.of_sandbox.resources.values() if physical.startswith("vol-")
    }
    assert len(volumes) == 1
    assert beside.remaining == volumes
    assert beside.of_sandbox_after == Deployed(
        events={}, resources={}, metrics=frozenset(), exports=frozenset(), hosts=frozenset()
    )
