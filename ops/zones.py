"""`postern zones`: the mail host and the queue of each availability zone, and taking a zone away.

A queue volume is in one zone and has one host: when a zone is removed its volume is kept, and
nobody sends what is on it. So a zone is drained first. Its host takes no new mail, by
user_data/submission/postern-submission, until its queue is empty; the volume then has a tag that
says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from ops import queue, run_command
from ops.command_lines import postern
from ops.deployment import CannotTell, Deployment, MailHost, NotDeployed
from ops.on_hosts import Answers, chosen
from ops.options import EnvironmentName, Json, console, lists_by_default, told_errors
from ops.verdicts import EXIT_STATUS, Finding, Verdict, as_json, overall, show

SUBMISSION: Final = "/usr/local/sbin/postern-submission"
REPORT: Final = "/usr/local/sbin/postern-report"
# What stacks/mail_cell.py puts on everything of a cell: ENVIRONMENT/ZONE.
CELL_TAG: Final = "postern:cell"
# On a queue volume that was empty when its host took no more mail: since when (ISO 8601).
DRAINED_TAG: Final = "postern:drained"
# Where a host attaches its queue volume (user_data/queue_volume/attach-queue-volume).
QUEUE_DEVICE: Final = "/dev/sdf"
POLL_SECONDS: Final = 10.0
WAIT_SECONDS: Final = 300

app = typer.Typer(invoke_without_command=True, help="Availability zones, and taking one away")

ZoneName = Annotated[str, typer.Argument(metavar="ZONE", help="Such as us-east-1b")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")]


@dataclass(frozen=True, kw_only=True)
class LeftOver:
    """A queue volume of this environment that no host has. drained: since when, or ""."""

    volume_id: str
    zone: str
    size_gib: int
    drained: str


@dataclass(frozen=True, kw_only=True)
class Queue:
    """What a host says. undeliverable_bytes: bounces that nobody took, which are kept too."""

    host: MailHost
    closed: bool
    listed: Mapping[str, Any]
    undeliverable_bytes: int

    @property
    def waiting(self) -> int:
        return int(self.listed["total"])

    @property
    def empty(self) -> bool:
        return not (self.waiting or self.undeliverable_bytes)

    def __str__(self) -> str:
        words = [f"{self.waiting} messages wait" if self.waiting else "nothing waits"]
        if self.undeliverable_bytes:
            words.append(f"{self.undeliverable_bytes} bytes of bounces that nobody took are kept")
        words.append("takes no new mail" if self.closed else "takes mail")
        return ", ".join(words)


def left_over(deployment: Deployment) -> list[LeftOver]:
    """The queue volumes that a removed zone or stack left behind; raises CannotTell."""
    prefix = f"{deployment.settings.name}/"
    found = []
    wanted = _in_use(deployment)
    for volume in deployment.pages(
        "ec2", "describe_volumes", "Volumes", Filters=[{"Name": "tag-key", "Values": [CELL_TAG]}]
    ):
        tags = {tag["Key"]: tag["Value"] for tag in volume.get("Tags", [])}
        cell = tags.get(CELL_TAG, "")
        # One that a host is about to attach is available too, and a host's root volume is not.
        if (
            cell.startswith(prefix)
            and volume["State"] == "available"
            and volume["VolumeId"] not in wanted
        ):
            found.append(
                LeftOver(
                    volume_id=volume["VolumeId"],
                    zone=cell.removeprefix(prefix),
                    size_gib=volume["Size"],
                    drained=tags.get(DRAINED_TAG, ""),
                )
            )
    return sorted(found, key=lambda volume: (volume.zone, volume.volume_id))


def left_over_findings(deployment: Deployment) -> Iterator[Finding]:
    """A finding for each volume that was left behind, or that there is none."""
    volumes = left_over(deployment)
    if not volumes:
        evidence = "every one is in use"
        yield Finding(check="Queue volumes", verdict=Verdict.FINE, evidence=evidence)
    for volume in volumes:
        delete = f"aws ec2 delete-volume --volume-id {volume.volume_id}"
        evidence = f"{volume.zone}, {volume.size_gib} GiB, no host has it; "
        if volume.drained:
            verdict = Verdict.FINE
            evidence += f"it was empty at {volume.drained}"
            remedy = f"It costs and holds no mail: {delete}"
        else:
            verdict = Verdict.WRONG
            evidence += "nobody said that it is empty: mail on it is sent by nobody"
            again = (
                f"To have it sent put the zone into availability_zones of "
                f"{deployment.settings.file} again, with [queue_volumes.{volume.zone}] volume_id = "
                f'"{volume.volume_id}", deploy, and drain the zone: '
                if deployment.settings.suffix is None
                else ""
            )
            drain = postern(deployment.settings, f"zones drain {volume.zone}")
            remedy = f"{again}{drain if again else ''}. If nothing on it is needed: {delete}"
            remedy = remedy.removeprefix(". ")
        yield Finding(
            check=f"Queue volume {volume.volume_id}",
            verdict=verdict,
            evidence=evidence,
            remedy=remedy,
        )


def zone_findings(deployment: Deployment, *, leaving_only: bool = False) -> Iterator[Finding]:
    """What each zone's host says, and of a zone that leaves the file whether it may be removed."""
    settings = deployment.settings
    hosts = {host.zone: host for host in deployment.hosts()}
    # A host's zone is deployed whatever its group says.
    for zone in sorted({*settings.availability_zones, *_deployed_zones(deployment), *hosts}):
        leaving = zone not in settings.availability_zones
        if leaving or not leaving_only:
            yield _zone(deployment, zone, hosts.get(zone), leaving=leaving)


def _zone(deployment: Deployment, zone: str, host: MailHost | None, *, leaving: bool) -> Finding:
    settings = deployment.settings
    check = f"Zone {zone}" + (", to be removed" if leaving else "")
    drain = postern(settings, f"zones drain {zone}")
    if host is None:
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN if leaving else Verdict.WRONG,
            evidence="no mail host is in service, so nobody knows what is in its queue",
            remedy="A host that ended is replaced within minutes: aws autoscaling "
            f"describe-scaling-activities says why not. Then {drain}"
            if leaving
            else "If the zone is new: deploy it. A host that ended is replaced within minutes.",
        )
    try:
        asked = ask(deployment, host)
    except CannotTell as failure:
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            evidence=str(failure),
            remedy="Run this again; postern doctor looks at the host itself.",
        )
    evidence = f"{host.instance_id}: {asked}"
    if leaving:
        fine = asked.closed and asked.empty
        remedy = f"What is left there nobody sends once the zone is removed. First: {drain}"
    else:
        fine = not asked.closed
        remedy = (
            f"It was closed to be drained: {postern(settings, f'zones open {zone}')} opens it, or "
            "remove the zone (docs/operations.md)."
        )
    return Finding(
        check=check,
        verdict=Verdict.FINE if fine else Verdict.WRONG,
        evidence=evidence,
        remedy="" if fine else remedy,
    )


def ask(deployment: Deployment, host: MailHost, submission: str = "status") -> Queue:
    """What waits on a host, once `submission` ("status", "close" or "open") is done there.

    Raises:
        CannotTell: the host cannot be asked.
    """

    def json_of(*argv: str, seconds: int = 60) -> dict[str, Any]:
        return run_command.run_json(deployment, host.instance_id, argv, seconds=seconds)

    state = json_of(SUBMISSION, submission)
    listed = json_of(queue.PROGRAM, "list", "--limit=20", seconds=queue.RUN_SECONDS)
    report = json_of(REPORT)
    return Queue(
        host=host,
        closed=bool(state["closed"]),
        listed=listed,
        undeliverable_bytes=int(report.get("undeliverable_bytes", 0)),
    )


def drain(
    deployment: Deployment,
    zone: str,
    *,
    seconds: float = WAIT_SECONDS,
    tell: Callable[[str], None] = print,
    pause: Callable[[float], None] = time.sleep,
) -> Queue:
    """Close a zone's host to new mail, try what waits once, and wait until its queue is empty.

    The queue volume gets `DRAINED_TAG` when it is, and loses it when it is not. May be called again
    at any time.

    Raises:
        CannotTell: the host or AWS could not be asked; the host may be closed already.
    """
    (host,) = chosen(deployment, zone)
    volume_id = _attached(deployment, host)
    found = ask(deployment, host, "close")
    tell(f"{host.instance_id} in {host.zone} takes no new mail.")
    if found.waiting:
        argv = [queue.PROGRAM, "retry", "--all", "--limit=0", f"--wait={queue.RETRY_SECONDS}"]
        run_command.run_json(deployment, host.instance_id, argv, seconds=queue.RUN_SECONDS)
        found = ask(deployment, host)
    waited = 0.0
    while found.waiting and waited < seconds:
        tell(f"{found}; the next look is in {POLL_SECONDS:.0f} s.")
        pause(POLL_SECONDS)
        waited += POLL_SECONDS
        found = ask(deployment, host)
    if found.empty:
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        tags = [{"Key": DRAINED_TAG, "Value": now}]
        deployment.call("ec2", "create_tags", Resources=[volume_id], Tags=tags)
    else:
        _forget(deployment, volume_id)
    return found


def reopen(deployment: Deployment, zone: str) -> Queue:
    """Let a zone's host take mail again; raises CannotTell."""
    (host,) = chosen(deployment, zone)
    _forget(deployment, _attached(deployment, host))  # first: what is closed may lack the tag
    return ask(deployment, host, "open")


def _forget(deployment: Deployment, volume_id: str) -> None:
    deployment.call("ec2", "delete_tags", Resources=[volume_id], Tags=[{"Key": DRAINED_TAG}])


def _attached(deployment: Deployment, host: MailHost) -> str:
    """The queue volume that a host has; raises CannotTell."""
    volumes = [
        volume["VolumeId"]
        for volume in deployment.pages(
            "ec2",
            "describe_volumes",
            "Volumes",
            Filters=[{"Name": "attachment.instance-id", "Values": [host.instance_id]}],
        )
        for attachment in volume["Attachments"]
        if (attachment["InstanceId"], attachment["Device"]) == (host.instance_id, QUEUE_DEVICE)
    ]
    if len(volumes) != 1:
        raise CannotTell(
            f"{host.instance_id} in {host.zone} has no queue volume at {QUEUE_DEVICE}, or is just "
            "starting. Run this again; postern doctor looks at the host itself."
        )
    return str(volumes[0])


def _in_use(deployment: Deployment) -> Collection[str]:
    """The queue volumes that the settings name or the stack has."""
    named = {volume.volume_id for volume in deployment.settings.queue_volumes.values()}
    try:
        stack = deployment.stack("MailHosts")
    except NotDeployed:
        return named
    return named | {resource.physical_id for resource in stack.of_type("AWS::EC2::Volume")}


def _deployed_zones(deployment: Deployment) -> list[str]:
    """The zones that have an Auto Scaling group, whether or not it has a host."""
    groups = [
        resource.physical_id
        for resource in deployment.stack("MailHosts").of_type("AWS::AutoScaling::AutoScalingGroup")
    ]
    answer = deployment.call(
        "autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=groups
    )
    return [zone for group in answer["AutoScalingGroups"] for zone in group["AvailabilityZones"]]


# The commands


@app.command("list")
def list_(name: EnvironmentName, as_json_: Json = False) -> None:
    """Show each zone's host and queue, and the queue volumes that no host has."""
    with told_errors(as_json=as_json_):
        deployment = Deployment.load(name)
        found = [*zone_findings(deployment), *left_over_findings(deployment)]
    _end(found, as_json_)


lists_by_default(app, list_)


@app.command()
def leaving(name: EnvironmentName, as_json_: Json = False) -> None:
    """Say whether the zones that the file no longer has are drained: `make shrink` asks first."""
    with told_errors(as_json=as_json_):
        found = list(zone_findings(Deployment.load(name), leaving_only=True))
    if not found:
        nothing = "the file has every zone that is deployed"
        found = [Finding(check="Zones", verdict=Verdict.FINE, evidence=nothing)]
    _end(found, as_json_)


@app.command("drain")
def drain_(
    zone: ZoneName,
    name: EnvironmentName,
    wait: Annotated[
        int, typer.Option(min=0, help="How long to wait for an empty queue, in seconds")
    ] = WAIT_SECONDS,
    yes: Yes = False,
    as_json_: Json = False,
) -> None:
    """Have a zone's host take no new mail, and wait until its queue is empty.

    Exit status 0: it is empty, and the zone may be removed; 1: mail is left there, which is shown.
    """
    with told_errors(as_json=as_json_):
        deployment = Deployment.load(name)
        others = [host.zone for host in deployment.hosts() if host.zone != zone]
        chosen(deployment, zone)
        elsewhere = (
            f"Mail is submitted in {', '.join(others)} only"
            if others
            else "It is the only zone: nobody can submit mail"
        )
        if not yes:
            if as_json_:
                raise CannotTell("With --json nobody can be asked: add --yes.")
            opened = postern(deployment.settings, f"zones open {zone}")
            if not typer.confirm(f"Drain {zone}? {elsewhere} until `{opened}`."):
                raise typer.Exit(EXIT_STATUS[Verdict.WRONG])
        found = drain(
            deployment, zone, seconds=wait, tell=lambda line: typer.echo(line, err=as_json_)
        )
    verdict = Verdict.FINE if found.empty else Verdict.WRONG
    if as_json_:
        document = {
            "verdict": verdict,
            "zone": zone,
            "host": found.host.instance_id,
            "waiting": found.waiting,
            "undeliverable_bytes": found.undeliverable_bytes,
        }
        typer.echo(json.dumps(document, indent=2))
    elif found.empty:
        console.print(f"{zone} is drained: it may be removed (docs/operations.md).")
    else:
        queue.show_list(
            queue.merged(Answers(by_host=[(found.host, dict(found.listed))], errors=[]))
        )
        console.print(_what_then(deployment, zone, found), markup=False, soft_wrap=True)
    raise typer.Exit(EXIT_STATUS[verdict])


@app.command("open")
def open_(zone: ZoneName, name: EnvironmentName, as_json_: Json = False) -> None:
    """Have a zone's host take mail again, after `drain`."""
    with told_errors(as_json=as_json_):
        found = reopen(Deployment.load(name), zone)
    if as_json_:
        typer.echo(json.dumps({"verdict": Verdict.FINE, "zone": zone, "closed": found.closed}))
    else:
        console.print(f"{found.host.instance_id} in {zone}: {found}.", markup=False)


def _what_then(deployment: Deployment, zone: str, found: Queue) -> str:
    settings = deployment.settings
    words = f"{zone} is not drained: {found}."
    if found.waiting:
        words += (
            " Its host goes on trying, for up to five days: run this again later, or see why "
            f"({postern(settings, 'queue list')} --host {zone}). What need not arrive: "
            f"{postern(settings, 'queue delete')} --host {zone}."
        )
    if found.undeliverable_bytes:
        words += (
            " The bounces are in /var/spool/queue/undeliverable on the host: read them, then empty "
            "that file (docs/runbooks/undeliverable-mail.md)."
        )
    return words


def _end(found: Sequence[Finding], as_json_: bool) -> None:
    if as_json_:
        typer.echo(as_json(found))
    else:
        show(found, console)
    raise typer.Exit(EXIT_STATUS[overall(found)])
