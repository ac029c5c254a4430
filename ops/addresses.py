"""`postern addresses`: the Elastic IPs of an environment, and giving one up for ever."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from ops.command_lines import cdk_deploy, make_shrink, postern
from ops.deployment import CannotTell, Deployment, NotDeployed, Stack
from ops.options import EnvironmentName, Json, console, lists_by_default, told_errors
from ops.verdicts import EXIT_STATUS, Finding, Verdict, as_json, overall, show

# What stacks/sending_address.py puts on each new address.
ENVIRONMENT_TAG: Final = "postern:environment"
# List price, whether something uses the address or not. https://aws.amazon.com/vpc/pricing/
COST: Final = "0.005 USD an hour, 3.65 a month"
POLL_SECONDS: Final = 2.0
# AWS names no limit for a PTR change; most take seconds.
PTR_SECONDS: Final = 600

app = typer.Typer(invoke_without_command=True, help="The Elastic IPs that mail leaves from")


class Refused(Exception):
    """An address is not to be released; the text says why, and what to do instead."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """An Elastic IP, as AWS, the stack and the settings know it. A missing text is ""."""

    address: str
    allocation_id: str
    reverse_dns: str
    reverse_dns_change: str
    """The status of a change of it that has not succeeded, such as PENDING, and AWS's reason."""
    held_by: str
    """What it is associated with: a NAT gateway, an instance or a network interface."""
    in_stack: bool
    in_settings: bool
    ours: bool
    """Whether its tag says that it was made for this environment."""
    since: str
    """A date, and who says so; "" when it could not be told."""

    @property
    def wanted(self) -> bool:
        """Whether the environment, as written or as deployed, has it."""
        return self.in_stack or self.in_settings


def read(deployment: Deployment) -> list[Address]:
    """The addresses with the environment's tag, in its stack, or in its settings.

    Raises:
        CannotTell: AWS could not be asked.
    """
    return [a for a in _read_all(deployment) if a.ours or a.wanted]


def findings(deployment: Deployment, addresses: Sequence[Address]) -> list[Finding]:
    """What is to be said of each address."""
    if not addresses:
        nothing = f"none has the tag {ENVIRONMENT_TAG}={deployment.settings.name}"
        return [Finding(check="Elastic IPs", verdict=Verdict.FINE, evidence=nothing)]
    sending = _stack(deployment, "Network") is not None
    return [_finding(deployment, address, sending=sending) for address in addresses]


def _finding(deployment: Deployment, address: Address, *, sending: bool) -> Finding:
    domain = deployment.settings.sending_domain
    evidence = "; ".join(
        (
            f"reverse DNS {address.reverse_dns or 'none'}"
            + (f" ({address.reverse_dns_change})" if address.reverse_dns_change else ""),
            f"held by {address.held_by}" if address.held_by else "held by nothing",
            f"since {address.since}" if address.since else "age could not be told",
            _belonging(address),
        )
    )
    deploy = cdk_deploy(deployment.settings)
    if not address.wanted:
        remedy = f"Something else holds it: see what {address.held_by} is before it is released."
        if not address.held_by:
            # A sandbox takes no address from its file.
            again = (
                f"Take it into use again ([elastic_ips] in {deployment.settings.file}), or give"
                if deployment.settings.suffix is None
                else "Give"
            )
            remedy = (
                f"It costs {COST}, and its reputation fades unused. {again} it up: "
                f"{postern(deployment.settings, f'addresses release {address.address}')}"
            )
    elif address.reverse_dns != domain:
        remedy = f"Receivers refuse mail from it: its reverse DNS must be {domain}. Run: {deploy}"
    elif sending and not address.held_by:
        remedy = f"No mail leaves from it. Run: {deploy}"
    else:
        remedy = ""
    return Finding(
        check=f"{address.address} ({address.allocation_id})",
        verdict=Verdict.WRONG if remedy else Verdict.FINE,
        evidence=evidence,
        remedy=remedy,
    )


def _belonging(address: Address) -> str:
    if address.in_settings:
        return "in use, named in the settings"
    return "in use by the deployed stack" if address.in_stack else "left over"


def release(
    deployment: Deployment,
    wanted: str,
    *,
    confirm: Callable[[Address], bool],
    tell: Callable[[str], None] = print,
    seconds: float = PTR_SECONDS,
    pause: Callable[[float], None] = time.sleep,
) -> Address:
    """Reset the address's reverse DNS, wait until it is gone, release it; `wanted` is its IP or id.

    May be called again after any failure, and goes on where it was.

    Raises:
        Refused: the address is in use or not this environment's, or `confirm` said no.
        CannotTell: AWS did not do a step, or not in time; the text says what the state is.
    """
    address = _releasable(deployment, wanted)
    if not confirm(address):
        raise Refused(f"{address.address} was kept.")
    again = (
        "Run it again to go on: "
        f"{postern(deployment.settings, f'addresses release {address.address}')}"
    )
    kept = f"{address.address} is still yours"
    try:
        _give_reverse_dns_up(deployment, address, tell=tell, seconds=seconds, pause=pause)
    except CannotTell as error:
        raise CannotTell(f"{error}\n{kept}, its reverse DNS may be gone. {again}") from error
    try:
        deployment.call("ec2", "release_address", AllocationId=address.allocation_id)
    except CannotTell as error:
        if not _is_gone(error):
            raise CannotTell(f"{error}\n{kept}, without reverse DNS. {again}") from error
    tell(f"Released {address.address}.")
    return address


def _releasable(deployment: Deployment, wanted: str) -> Address:
    settings = deployment.settings
    known = _read_all(deployment)
    found = [a for a in known if wanted in (a.address, a.allocation_id)]
    if not found:
        raise Refused(
            f"{wanted} is no Elastic IP of {settings.account} in {settings.region}: it was "
            f"released already, or mistyped. See {postern(settings, 'addresses')}"
        )
    (address,) = found
    identity = deployment.stack_name("SendingIdentity")
    if address.in_settings:
        raise Refused(
            f"{address.address} is named under [elastic_ips] in {settings.file}: it sends. Remove "
            "it there and deploy first; after that, as it was not made here, release it with "
            f"aws ec2 release-address --allocation-id {address.allocation_id}"
        )
    if address.in_stack:
        raise Refused(
            f"{address.address} is in {identity}: it sends, or will. Drain its zone "
            f"({postern(settings, 'zones drain ZONE')}), remove it from availability_zones, and "
            f"deploy that: {make_shrink(settings)}"
        )
    if address.held_by:
        raise Refused(
            f"{address.address} is associated with {address.held_by}. Delete that first, if "
            "nothing needs it."
        )
    if not address.ours:
        raise Refused(
            f"{address.address} has no tag {ENVIRONMENT_TAG}={settings.name}: it was not made for "
            f"this environment. If it is yours: aws ec2 release-address --allocation-id "
            f"{address.allocation_id}"
        )
    stack = _stack(deployment, "SendingIdentity")
    if stack is not None and stack.status.endswith("_IN_PROGRESS"):
        raise Refused(f"{identity} is {stack.status}: wait until its deployment has ended.")
    return address


def _give_reverse_dns_up(
    deployment: Deployment,
    address: Address,
    *,
    tell: Callable[[str], None],
    seconds: float,
    pause: Callable[[float], None],
) -> None:
    """An address with a PTR record cannot be released."""
    name, update = _reverse_dns(deployment, address.allocation_id)
    resetting = update.get("Status") == "PENDING" and not update.get("Value")
    if not name and update.get("Status") != "PENDING":
        return
    if not resetting:
        tell(f"Resetting the reverse DNS of {address.address}, {name or update.get('Value')}.")
        deployment.call(
            "ec2",
            "reset_address_attribute",
            AllocationId=address.allocation_id,
            Attribute="domain-name",
        )
    waited = 0.0
    while True:
        name, update = _reverse_dns(deployment, address.allocation_id)
        status = update.get("Status", "")
        if not name and status != "PENDING":
            tell("It is gone.")
            return
        if status not in ("", "PENDING"):
            raise CannotTell(f"AWS did not reset it: {status}: {update.get('Reason', '')}")
        if waited >= seconds:
            raise CannotTell(f"After {seconds:.0f} s AWS still says {status or name}.")
        pause(POLL_SECONDS)
        waited += POLL_SECONDS


def _is_gone(error: CannotTell) -> bool:
    return "InvalidAllocationID.NotFound" in str(error)


# What AWS knows


def _read_all(deployment: Deployment) -> list[Address]:
    described = deployment.call("ec2", "describe_addresses")["Addresses"]
    identity = _stack(deployment, "SendingIdentity")
    elastic_ips = identity.of_type("AWS::EC2::EIP") if identity else []
    stack_dates = {resource.physical_id: resource.changed for resource in elastic_ips}
    settings = {ip.allocation_id for ip in deployment.settings.elastic_ips.values()}
    holders = _nat_gateways(deployment)

    def is_ours(item: Mapping[str, Any]) -> bool:
        tags = {tag["Key"]: tag["Value"] for tag in item.get("Tags", [])}
        return tags.get(ENVIRONMENT_TAG) == deployment.settings.name

    undated = [
        item["AllocationId"]
        for item in described
        if item["PublicIp"] not in stack_dates
        and (is_ours(item) or item["AllocationId"] in settings)
    ]
    trail_dates = _allocation_dates(deployment, undated)
    found = []
    for item in described:
        allocation_id, address = item["AllocationId"], item["PublicIp"]
        name, update = _reverse_dns(deployment, allocation_id)
        since = ""
        if address in stack_dates:
            since = f"{_date(stack_dates[address])} or before (the stack)"
        elif allocation_id in trail_dates:
            since = f"{_date(trail_dates[allocation_id])} (CloudTrail)"
        found.append(
            Address(
                address=address,
                allocation_id=allocation_id,
                reverse_dns=name,
                reverse_dns_change=" ".join(
                    update[key] for key in ("Status", "Value", "Reason") if update.get(key)
                ),
                held_by=holders.get(allocation_id)
                or item.get("InstanceId")
                or item.get("NetworkInterfaceId")
                or item.get("AssociationId", ""),
                in_stack=address in stack_dates,
                in_settings=allocation_id in settings,
                ours=is_ours(item),
                since=since,
            )
        )
    return found


def _stack(deployment: Deployment, name: str) -> Stack | None:
    try:
        return deployment.stack(name)
    except NotDeployed:
        return None


def _nat_gateways(deployment: Deployment) -> dict[str, str]:
    """The NAT gateway that holds an address, by allocation id."""
    gateways = deployment.pages("ec2", "describe_nat_gateways", "NatGateways")
    return {
        held["AllocationId"]: gateway["NatGatewayId"]
        for gateway in gateways
        if gateway["State"] not in ("deleted", "failed")
        for held in gateway.get("NatGatewayAddresses", [])
        if "AllocationId" in held
    }


def _reverse_dns(deployment: Deployment, allocation_id: str) -> tuple[str, dict[str, str]]:
    """The name, without its final dot, and the last change if it has not succeeded."""
    answer = deployment.call(
        "ec2",
        "describe_addresses_attribute",
        AllocationIds=[allocation_id],
        Attribute="domain-name",
    )
    # An address without a PTR record, and without a change of it, may be left out.
    item: dict[str, Any] = next(iter(answer["Addresses"]), {})
    return item.get("PtrRecord", "").rstrip("."), item.get("PtrRecordUpdate", {})


def _allocation_dates(
    deployment: Deployment, allocation_ids: Collection[str]
) -> dict[str, datetime]:
    """When addresses were allocated, which EC2 does not say; CloudTrail remembers for 90 days."""
    if not allocation_ids:
        return {}
    try:
        events = deployment.pages(
            "cloudtrail",
            "lookup_events",
            "Events",
            LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "AllocateAddress"}],
        )
    except CannotTell:
        return {}  # an age that could not be told is no reason to tell nothing
    dates = {}
    for event in events:
        answered = json.loads(event.get("CloudTrailEvent", "{}")).get("responseElements") or {}
        if answered.get("allocationId") in allocation_ids:
            dates[answered["allocationId"]] = event["EventTime"]
    return dates


def _date(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d}"


# The commands


@app.command("list")
def list_(name: EnvironmentName, as_json_: Json = False) -> None:
    """List them: reverse DNS, age, what holds each, and which are left over."""
    with told_errors(as_json=as_json_):
        deployment = Deployment.load(name)
        known = read(deployment)
        found = findings(deployment, known)
    if as_json_:
        typer.echo(as_json(found, addresses=[asdict(address) for address in known]))
    else:
        show(found, console)
    raise typer.Exit(EXIT_STATUS[overall(found)])


lists_by_default(app, list_)


@app.command("release")
def release_(
    address: Annotated[str, typer.Argument(help="The address, or its allocation id")],
    name: EnvironmentName,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    seconds: Annotated[
        int, typer.Option("--wait", help="How long to wait for the reverse DNS, in seconds")
    ] = PTR_SECONDS,
    as_json_: Json = False,
) -> None:
    """Give a left-over address up for ever: reset its reverse DNS, wait, release it."""

    def confirm(found: Address) -> bool:
        if yes:
            return True
        if as_json_:
            raise Refused("With --json nobody is asked: say --yes.")
        return typer.confirm(
            f"Release {found.address} (reverse DNS: {found.reverse_dns or 'none'})? Somebody else "
            "gets it, with the reputation that it earned."
        )

    def tell(line: str) -> None:
        typer.echo(line, err=as_json_)

    with told_errors(as_json=as_json_):
        try:
            released = release(
                Deployment.load(name), address, confirm=confirm, tell=tell, seconds=seconds
            )
        except Refused as refused:
            if as_json_:
                typer.echo(json.dumps({"verdict": Verdict.WRONG, "error": str(refused)}, indent=2))
            typer.echo(str(refused), err=True)
            raise typer.Exit(EXIT_STATUS[Verdict.WRONG]) from None
    if as_json_:
        document = {"verdict": Verdict.FINE, "released": asdict(released)}
        typer.echo(json.dumps(document, indent=2))
