"""`postern dkim`: a new DKIM key in three steps, each one a reviewed change of the settings.

Publish the new selector; sign with it once the whole world can see it; remove the old one when no
mail that it signed is under way any more. A step edits the environment's file, and a person or a
pipeline deploys it: nothing here does. No private key is read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from ops import hosted_zone, run_command
from ops.command_lines import cdk_deploy, make_diff, postern
from ops.deployment import CannotTell, Deployment, MailHost
from ops.dns_answers import Dns, Server, zone_file_text
from ops.environment_file import replace_dkim
from ops.options import EnvironmentName, Json, console, told_errors
from ops.verdicts import EXIT_STATUS, Finding, Verdict, as_json, overall, show
from stacks.environment import SUFFIX_VARIABLE, Dkim

# What sendmail's confTO_QUEUERETURN says: then a message is returned to its sender.
QUEUE_LIFETIME: Final = timedelta(days=5)
# For mail that a receiver took in time and that a mailbox's own server verifies later.
MARGIN: Final = timedelta(days=2)
REPORT: Final = "/usr/local/sbin/postern-report"
_SETTLED: Final = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")

app = typer.Typer(no_args_is_help=True, help="DKIM keys: which one signs, and a new one's way in")


class Step(StrEnum):
    """What a rotation does next."""

    PUBLISH = "publish"
    SIGN = "sign"
    RETIRE = "retire"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A step, the selectors that it is about, and [dkim] as it will be."""

    step: Step
    selectors: tuple[str, ...]
    settings: Dkim

    def __str__(self) -> str:
        names = ", ".join(self.selectors)
        return {
            Step.PUBLISH: f"publish {names}, beside the selector that signs",
            Step.SIGN: f"sign with {names}",
            Step.RETIRE: f"remove {names}, which signs no more",
        }[self.step]


class NoPlan(Exception):
    """The next step cannot be what was asked for; the text says what to do."""


def plan(dkim: Dkim, *, used: Collection[str], wanted: str | None, year: int) -> Plan:
    """The next step from these settings.

    The list's order tells how far a rotation is: what comes after the signing selector is
    published and shall sign, what comes before it has signed.

    Args:
        used: every selector that this environment has or had, since none may come back with
            another key.
        wanted: the name for a new selector; without one it is the year's next, such as "s2026b".
    """
    at = dkim.selectors.index(dkim.signing)
    before, after = dkim.selectors[:at], dkim.selectors[at + 1 :]
    if wanted is not None and (before or after):
        raise NoPlan(
            f"A rotation is under way: {', '.join(dkim.selectors)} are listed and {dkim.signing} "
            "signs. End it first: run `postern dkim rotate` without --selector."
        )
    if after:
        changed = dkim.model_copy(update={"signing": after[-1]})
        return Plan(step=Step.SIGN, selectors=(after[-1],), settings=changed)
    if before:
        changed = dkim.model_copy(update={"selectors": (dkim.signing,)})
        return Plan(step=Step.RETIRE, selectors=before, settings=changed)
    new = wanted or next_selector(used, year=year)
    if new in used:
        raise NoPlan(
            f"{new} is or was a selector of this environment, and a selector never gets another "
            "key: receivers remember the old one. Choose another name."
        )
    changed = dkim.model_copy(update={"selectors": (*dkim.selectors, new)})
    return Plan(step=Step.PUBLISH, selectors=(new,), settings=changed)


def next_selector(used: Collection[str], *, year: int) -> str:
    """`s<year>` and the letter after the last one used; raises NoPlan after z."""
    letters = [name[-1] for name in used if re.fullmatch(rf"s{year}[a-z]", name)]
    letter = chr(ord(max(letters)) + 1) if letters else "a"
    if letter > "z":
        raise NoPlan(f"s{year}z is used already: choose a name with --selector.")
    return f"s{year}{letter}"


def guards(deployment: Deployment, planned: Plan, *, now: datetime) -> list[Finding]:
    """What must hold before a step; the step may be taken when all of it is fine.

    Raises:
        CannotTell: AWS could not be asked.
    """
    match planned.step:
        case Step.PUBLISH:
            return _may_publish(deployment, planned.selectors[0])
        case Step.SIGN:
            return _may_sign(deployment, planned.selectors[0], now=now)
        case Step.RETIRE:
            return _may_retire(deployment, now=now)


def used_selectors(deployment: Deployment) -> set[str]:
    """Every selector that the settings or the stack have, or of which a key was kept."""
    domain = deployment.settings.sending_domain
    kept = deployment.pages("secretsmanager", "list_secrets", "SecretList")
    descriptions = (secret.get("Description", "") for secret in kept)  # never a value
    pattern = rf"DKIM private key (\S+)\._domainkey\.{re.escape(domain)}"
    matches = (re.fullmatch(pattern, description) for description in descriptions)
    return {
        *deployment.settings.dkim.selectors,
        *_deployed_selectors(deployment),
        *(match[1] for match in matches if match),
    }


# The guards


def _may_publish(deployment: Deployment, new: str) -> list[Finding]:
    settings = deployment.settings.dkim
    deployed = _deployed_selectors(deployment)
    record = _record_name(deployment, new)
    values = hosted_zone.txt_values(deployment, record)
    return [
        Finding(
            check="selectors deployed",
            verdict=Verdict.FINE if deployed == set(settings.selectors) else Verdict.WRONG,
            evidence=f"the stack has {_listed(deployed)}, the file {_listed(settings.selectors)}",
            remedy=""
            if deployed == set(settings.selectors)
            else f"Deploy what the file says first: {_deploy(deployment, Step.RETIRE)}",
        ),
        _signing_finding(deployment),
        Finding(
            check=f"{record} free",
            verdict=Verdict.WRONG if values else Verdict.FINE,
            evidence=f"the hosted zone has it: {' '.join(values)}" if values else "no such record",
            remedy="Choose another name with --selector." if values else "",
        ),
    ]


def _may_sign(deployment: Deployment, new: str, *, now: datetime) -> list[Finding]:
    record = _record_name(deployment, new)
    if new not in _deployed_selectors(deployment):
        return [
            Finding(
                check=f"key of {new}",
                verdict=Verdict.WRONG,
                evidence=f"{deployment.stack_name('SendingIdentity')} has no key of this selector",
                remedy=f"Publish it first: {_deploy(deployment, Step.PUBLISH)}",
            )
        ]
    key = Finding(check=f"key of {new}", verdict=Verdict.FINE, evidence="made by the stack")
    values = hosted_zone.txt_values(deployment, record)
    if not values:
        missing = Finding(
            check=f"{record} in the hosted zone",
            verdict=Verdict.WRONG,
            evidence=f"{deployment.settings.hosted_zone.id} has no such TXT record",
            remedy="Somebody removed it: see what changed (aws cloudformation "
            f"detect-stack-drift --stack-name {deployment.stack_name('SendingIdentity')}) and put "
            "it back.",
        )
        return [key, missing]
    published = Finding(
        check=f"{record} in the hosted zone", verdict=Verdict.FINE, evidence=" ".join(values)
    )
    dns = Dns()
    servers = dns.servers_of(deployment.settings.hosted_zone.name)
    at_servers = [_at_server(dns, server, record, values) for server in servers]
    waited = _seen_long_enough(deployment, record, dns, servers, now=now)
    return [key, published, *at_servers, waited]


def _at_server(dns: Dns, server: Server, record: str, values: Sequence[str]) -> Finding:
    check = f"{record} at {server}"
    try:
        seen = dns.ask(server, record, "TXT", recursive=False)
    except CannotTell as error:
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            evidence=str(error),
            remedy="Try again from a network that reaches it. If the server is gone, correct the "
            "zone's name servers at its registrar: receivers ask it too.",
        )
    if set(seen) == {zone_file_text(value, "TXT") for value in values}:
        return Finding(check=check, verdict=Verdict.FINE, evidence="as in the hosted zone")
    shown = "; ".join(seen)
    return Finding(
        check=check,
        verdict=Verdict.WRONG,
        evidence=f"it has another value: {shown}" if shown else "it has no such record",
        remedy="Refusing to sign with a key the world can't see. Route 53's servers have a change "
        "within a minute or so: try again. If the server is not Route 53's, correct the zone's "
        "name servers at its registrar.",
    )


def _seen_long_enough(
    deployment: Deployment,
    record: str,
    dns: Dns,
    servers: Sequence[Server],
    *,
    now: datetime,
) -> Finding:
    """A resolver that was asked for the name too early still believes that there is none."""
    check = "time since publication"
    records = deployment.stack("SendingIdentity").of_type("AWS::Route53::RecordSet")
    since = [r.changed for r in records if r.physical_id.rstrip(".") == record]
    if not since:
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            evidence=f"{deployment.stack_name('SendingIdentity')} does not have {record}",
            remedy=f"Let the stack publish it: {_deploy(deployment, Step.PUBLISH)}",
        )
    zone = deployment.settings.hosted_zone.name
    try:
        wait = timedelta(seconds=max(dns.absence_seconds(s, zone) for s in servers))
    except CannotTell as error:
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            evidence=str(error),
            remedy="Try again when every authoritative server answers.",
        )
    ready = max(since) + wait
    evidence = (
        f"published {_when(max(since))} (the stack); a resolver may remember for {_span(wait)} "
        "that a name was missing (the zone's SOA record, RFC 2308)"
    )
    if now >= ready:
        return Finding(check=check, verdict=Verdict.FINE, evidence=evidence)
    return Finding(
        check=check,
        verdict=Verdict.WRONG,
        evidence=evidence,
        remedy=f"Refusing to sign with a key the world can't see: try again at {_when(ready)}.",
    )


def _may_retire(deployment: Deployment, *, now: datetime) -> list[Finding]:
    signing = _signing_finding(deployment)
    if signing.verdict is not Verdict.FINE:
        return [signing]
    hosts = {host.zone: host for host in deployment.hosts()}
    findings = [signing]
    for zone in deployment.settings.availability_zones:
        if zone in hosts:
            findings += _host_findings(deployment, hosts[zone], now=now)
            continue
        findings.append(
            Finding(
                check=f"host in {zone}",
                verdict=Verdict.UNKNOWN,
                evidence="none is in service; its queue may hold mail that the old key signed",
                remedy="Try again a week after its host is back.",
            )
        )
    return findings


def _host_findings(deployment: Deployment, host: MailHost, *, now: datetime) -> list[Finding]:
    """Each host of a settled stack was launched with the settings that the stack has now."""
    check = f"host in {host.zone}"
    ready = host.launched + QUEUE_LIFETIME + MARGIN
    evidence = (
        f"{host.instance_id} has signed with {deployment.settings.dkim.signing} since "
        f"{_when(host.launched)}; older mail leaves its queue within {QUEUE_LIFETIME.days} days"
    )
    if now < ready:
        too_young = Finding(
            check=check,
            verdict=Verdict.WRONG,
            evidence=evidence,
            remedy=f"Mail that the old key signed may be under way. {MARGIN.days} more days let "
            f"receivers' own servers verify it: try again at {_when(ready)}.",
        )
        return [too_young]
    old_enough = Finding(check=check, verdict=Verdict.FINE, evidence=evidence)
    return [old_enough, _queue_finding(deployment, host, now=now)]


def _queue_finding(deployment: Deployment, host: MailHost, *, now: datetime) -> Finding:
    """What an operator holds does not expire, and has the signature that it came with."""
    check = f"queue in {host.zone}"
    try:
        report = run_command.run_json(deployment, host.instance_id, [REPORT])
        held, oldest = report["held"], timedelta(seconds=report["oldest_age_seconds"])
    except (CannotTell, KeyError) as error:
        why = str(error) if isinstance(error, CannotTell) else f"the report has no {error}"
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            evidence=why,
            remedy="Try again when the host tells what is in its queue.",
        )
    evidence = f"{held} held, the oldest of the others {oldest} old"
    if held or oldest > now - host.launched:
        return Finding(
            check=check,
            verdict=Verdict.WRONG,
            evidence=evidence,
            remedy="Mail that the old key signed may be among it. Release or delete it first: "
            f"{postern(deployment.settings, 'queue list')}",
        )
    return Finding(check=check, verdict=Verdict.FINE, evidence=evidence)


def _signing_finding(deployment: Deployment) -> Finding:
    """Whether the deployed hosts sign with the file's selector."""
    check, wanted = "selector that signs", deployment.settings.dkim.signing
    stack = deployment.stack("MailHosts")
    remedy = f"Deploy what the file says first: {_deploy(deployment, Step.SIGN)}"
    if stack.status not in _SETTLED:
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            evidence=f"{stack.name} is {stack.status}: old and new hosts may run side by side",
            remedy="Wait until its deployment has ended well.",
        )
    deployed = stack.outputs.get("SigningSelector")
    if deployed is None:
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            evidence=f"{stack.name} does not say: it was deployed by an older version",
            remedy=remedy,
        )
    if deployed != wanted:
        return Finding(
            check=check,
            verdict=Verdict.WRONG,
            evidence=f"the deployed hosts sign with {deployed}, the file says {wanted}",
            remedy=remedy,
        )
    return Finding(check=check, verdict=Verdict.FINE, evidence=f"{wanted}, as deployed")


# What is deployed


def _deployed_selectors(deployment: Deployment) -> set[str]:
    keys = deployment.stack("SendingIdentity").of_type("Custom::DkimKey")
    return {key.physical_id.partition("._domainkey.")[0] for key in keys}


def _record_name(deployment: Deployment, selector: str) -> str:
    return f"{selector}._domainkey.{deployment.settings.sending_domain}"


# The commands


@app.command()
def status(name: EnvironmentName, as_json_: Json = False) -> None:
    """Say which selector signs and what the next step is; status 0 when it may be taken now."""
    with told_errors(as_json=as_json_):
        deployment = Deployment.load(name)
        planned, findings = _look(deployment, wanted=None)
    _tell(deployment, planned, findings, as_json_=as_json_)
    raise typer.Exit(EXIT_STATUS[overall(findings)])


@app.command()
def rotate(
    name: EnvironmentName,
    selector: Annotated[
        str | None,
        typer.Option(help="The new selector's name, when one is published [default: s<year><a-z>]"),
    ] = None,
    as_json_: Json = False,
) -> None:
    """Take the next step in the environment's file: publish, sign with it, remove the old one.

    Refuses a step that would make mail fail. Deploys nothing: the change is for review.
    """
    with told_errors(as_json=as_json_):
        deployment = Deployment.load(name)
        planned, findings = _look(deployment, wanted=selector)
        diff = ""
        if planned is not None and overall(findings) is Verdict.FINE:
            diff = replace_dkim(deployment.settings.file, planned.settings)
    _tell(deployment, planned, findings, as_json_=as_json_, diff=diff, asked=True)
    raise typer.Exit(EXIT_STATUS[overall(findings)])


def _look(deployment: Deployment, *, wanted: str | None) -> tuple[Plan | None, list[Finding]]:
    settings, now = deployment.settings, datetime.now(UTC)
    if settings.suffix is not None:
        not_its_own = Finding(
            check="next step",
            verdict=Verdict.WRONG,
            evidence=f"{settings.name} is a sandbox: its selectors are those of {settings.file}",
            remedy=f"Rotate where they are shared: {SUFFIX_VARIABLE}= postern dkim rotate "
            f"--environment {settings.file.stem}. {settings.name} follows when it is deployed.",
        )
        return None, [not_its_own]
    try:
        planned = plan(settings.dkim, used=used_selectors(deployment), wanted=wanted, year=now.year)
    except NoPlan as error:
        refused = Finding(
            check="next step",
            verdict=Verdict.WRONG,
            evidence=f"--selector {wanted}" if wanted else "no name is left",
            remedy=str(error),
        )
        return None, [refused]
    return planned, guards(deployment, planned, now=now)


def _tell(
    deployment: Deployment,
    planned: Plan | None,
    findings: Sequence[Finding],
    *,
    as_json_: bool,
    diff: str = "",
    asked: bool = False,
) -> None:
    """Show what was found, what changed and what to do next."""
    dkim = deployment.settings.dkim
    commands = _next_commands(deployment, planned.step) if planned and diff else []
    if as_json_:
        step: dict[str, Any] = {} if planned is None else asdict(planned)
        step.pop("settings", None)
        more = {"signing": dkim.signing, "selectors": list(dkim.selectors), "next": step}
        typer.echo(as_json(findings, **more, diff=diff, commands=commands))
        return
    console.print(f"Listed: {_listed(dkim.selectors)}. Signing: {dkim.signing}.")
    if planned:
        console.print(f"The next step: {planned}.", highlight=False)
    show(findings, console)
    if diff:
        typer.echo(f"Changed {deployment.settings.file}:\n\n{diff}")
        typer.echo("Have it reviewed like any other change. Then:\n")
        typer.echo("".join(f"    {command}\n" for command in commands))
    elif asked:
        typer.echo(f"Refused; {deployment.settings.file} is as it was.", err=True)


def _next_commands(deployment: Deployment, step: Step) -> list[str]:
    commands = [make_diff(deployment.settings), _deploy(deployment, step)]
    if step is not Step.RETIRE:
        commands.append(postern(deployment.settings, "dkim rotate"))
    return commands


def _deploy(deployment: Deployment, step: Step) -> str:
    """The command that deploys a step: only another signing selector replaces the hosts."""
    stacks = "*" if step is Step.SIGN else "SendingIdentity"
    return cdk_deploy(deployment.settings, stacks)


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _when(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _span(span: timedelta) -> str:
    return f"{int(span.total_seconds())} s"
