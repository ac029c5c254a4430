"""The settings against the deployed stacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ops.command_lines import cdk_deploy, make_diff, make_shrink, postern
from ops.deployment import STACKS, NotDeployed, Stack
from ops.doctor.facts import Facts
from ops.verdicts import Finding, Verdict


def check_stacks(facts: Facts) -> Iterator[Finding]:
    """Each stack exists and its last deployment went through."""
    for stack in STACKS:
        check = f"Stack {stack}"
        try:
            deployed = facts.deployment.stack(stack)
        except NotDeployed as missing:
            text, _, remedy = str(missing).partition(". ")
            yield Finding(check=check, verdict=Verdict.WRONG, evidence=f"{text}.", remedy=remedy)
            continue
        yield _status(check, deployed)


def _status(check: str, stack: Stack) -> Finding:
    status = stack.status
    if status.endswith("_IN_PROGRESS"):
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            evidence=f"{stack.name} is being changed: {status}",
            remedy="Run this again when the deployment has ended.",
        )
    if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"):
        return Finding(check=check, verdict=Verdict.FINE, evidence=f"{stack.name}: {status}")
    events = f"aws cloudformation describe-stack-events --stack-name {stack.name}"
    remedy = f"Its events say why: {events}. Mend that and deploy again."
    if status == "UPDATE_ROLLBACK_COMPLETE":
        remedy = (
            f"The last deployment failed, and what was there before runs on. {remedy} (The word "
            "stays until a deployment succeeds.)"
        )
    elif status == "UPDATE_ROLLBACK_FAILED":
        remedy += f" First: aws cloudformation continue-update-rollback --stack-name {stack.name}"
    return Finding(
        check=check, verdict=Verdict.WRONG, evidence=f"{stack.name}: {status}", remedy=remedy
    )


def check_identity(facts: Facts) -> Iterator[Finding]:
    """What the settings say of domain, zones and selectors is what SendingIdentity has."""
    settings = facts.settings
    stack = facts.deployment.stack("SendingIdentity")
    yield _compared(
        facts,
        "Sending domain",
        wanted=settings.sending_domain,
        deployed=stack.outputs.get("SendingDomain", ""),
        stack=stack,
    )
    yield _compared(
        facts,
        "Selectors",
        wanted=_listed(settings.dkim.selectors),
        deployed=_listed(
            resource.physical_id.partition("._domainkey.")[0]
            for resource in stack.of_type("Custom::DkimKey")
        ),
        stack=stack,
    )
    addresses = {address.address for address in facts.addresses()}
    named = {elastic_ip.address for elastic_ip in settings.elastic_ips.values()}
    zones = len(settings.availability_zones)
    if len(addresses) == zones and named <= addresses:
        yield Finding(
            check="Elastic IPs",
            verdict=Verdict.FINE,
            evidence=f"{_listed(addresses)}: one for each zone",
        )
    else:
        yield Finding(
            check="Elastic IPs",
            verdict=Verdict.WRONG,
            evidence=f"{settings.file} has {zones} zones"
            + (f" and names {_listed(named)}" if named else "")
            + f"; deployed are {_listed(addresses)}",
            remedy=_deploy(facts),
        )


def check_mail_hosts(facts: Facts) -> Iterator[Finding]:
    """The hosts sign as set, and in each zone there is one, of the type that is set."""
    settings = facts.settings
    stack = facts.deployment.stack("MailHosts")
    yield _compared(
        facts,
        "Signing selector",
        wanted=settings.dkim.signing,
        deployed=stack.outputs.get("SigningSelector", ""),
        stack=stack,
    )
    hosts = facts.hosts()
    running = sorted(host.zone for host in hosts)
    wanted = sorted(settings.availability_zones)
    if running == wanted:
        yield Finding(
            check="Mail hosts",
            verdict=Verdict.FINE,
            evidence=", ".join(f"{host.instance_id} in {host.zone}" for host in hosts),
        )
    else:
        yield Finding(
            check="Mail hosts",
            verdict=Verdict.WRONG,
            evidence=f"in service in {_listed(running)}; {settings.file} says {_listed(wanted)}",
            remedy="A host that ended is replaced by itself within minutes. If it is not: aws "
            "autoscaling describe-scaling-activities says why. If a zone was added in the file: "
            f"{cdk_deploy(settings)}; if one was removed: {make_shrink(settings)}, when it is "
            f"drained ({postern(settings, 'zones')})",
        )
    reservations = facts.deployment.pages(
        "ec2",
        "describe_instances",
        "Reservations",
        InstanceIds=[host.instance_id for host in hosts],
    )
    others = {
        instance["InstanceId"]: instance["InstanceType"]
        for reservation in reservations
        for instance in reservation["Instances"]
        if instance["InstanceType"] != settings.host.instance_type
    }
    if others:
        yield Finding(
            check="Instance type",
            verdict=Verdict.WRONG,
            evidence=", ".join(f"{host} is a {kind}" for host, kind in others.items())
            + f"; {settings.file} says {settings.host.instance_type}",
            remedy=_deploy(facts),
        )
    else:
        yield Finding(
            check="Instance type", verdict=Verdict.FINE, evidence=settings.host.instance_type
        )


def _compared(facts: Facts, check: str, *, wanted: str, deployed: str, stack: Stack) -> Finding:
    if wanted == deployed:
        return Finding(check=check, verdict=Verdict.FINE, evidence=wanted)
    return Finding(
        check=check,
        verdict=Verdict.WRONG,
        evidence=f"{facts.settings.file} says {wanted}; {stack.name} has {deployed or 'none'}",
        remedy=_deploy(facts),
    )


def _deploy(facts: Facts) -> str:
    return (
        f"Look at what a deployment would change ({make_diff(facts.settings)}), then deploy it or "
        f"put the file back: {cdk_deploy(facts.settings)}"
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
