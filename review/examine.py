"""What deploying the changed templates would do, environment by environment."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final, Literal

from ops.verdicts import Verdict
from review import acknowledged
from review.cost import Cost, Prices
from review.engine import Changes, Template, compare
from review.snapshots import HOST_FILES, SEE, USER_DATA, Files, joined

ELSEWHERE: Final = "(no environment)"
"""The unit of the stacks that belong to no environment."""

Action = Literal["added", "changed", "replaced", "removed"]

# AWS or receivers remember them: a new one is not as good.
STATEFUL_TYPES: Final = frozenset(
    {
        "AWS::EC2::EIP",
        "AWS::EC2::Volume",
        "AWS::Route53::RecordSet",
        "AWS::SecretsManager::Secret",
        "Custom::DkimKey",
        "Custom::ReverseDns",
    }
)
# The ways of a packet into or out of a network, beside security groups' rules.
NETWORK_TYPES: Final = frozenset(
    {
        "AWS::EC2::CarrierGateway",
        "AWS::EC2::EgressOnlyInternetGateway",
        "AWS::EC2::InternetGateway",
        "AWS::EC2::NatGateway",
        "AWS::EC2::NetworkAclEntry",
        "AWS::EC2::Route",
        "AWS::EC2::SubnetRouteTableAssociation",
        "AWS::EC2::TransitGatewayAttachment",
        "AWS::EC2::TransitGatewayVpcAttachment",
        "AWS::EC2::VPCEndpoint",
        "AWS::EC2::VPCGatewayAttachment",
        "AWS::EC2::VPCPeeringConnection",
        "AWS::EC2::VPNConnection",
        "AWS::EC2::VPNGatewayRoutePropagation",
    }
)
PUBLIC_ADDRESS: Final = frozenset({"AssociatePublicIpAddress", "MapPublicIpOnLaunch"})
# A change of these ends the group's host and starts another one:
# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-attribute-updatepolicy.html
ROLLING: Final = frozenset({"LaunchTemplate", "VPCZoneIdentifier"})
_ACTIONS: Final[Mapping[str, Action]] = {
    "WILL_CREATE": "added",
    "WILL_IMPORT": "added",
    "NO_CHANGE": "changed",
    "WILL_UPDATE": "changed",
    "MAY_REPLACE": "replaced",
    "WILL_REPLACE": "replaced",
    "WILL_DESTROY": "removed",
    "WILL_ORPHAN": "removed",
}
_WHOSE: Final = {
    "MAY_REPLACE": "perhaps",
    "WILL_ORPHAN": "kept in the account, outside the stack",
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """A value that changes: dotted path in the resource, and whether it causes a replacement."""

    path: str
    before: str
    after: str
    impact: str


@dataclass(frozen=True, kw_only=True)
class Value:
    """What changes in a template beside its resources; "" where there is nothing on that side."""

    what: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Change:
    """What becomes of a resource; `id` is stack/logical id, `note` what else is to be known."""

    id: str
    type: str
    action: Action
    stateful: bool
    parts: tuple[Part, ...] = ()
    note: str = ""
    reason: str = ""
    """Why a stateful one may be lost, from acknowledged.toml."""

    @property
    def loss(self) -> bool:
        return self.stateful and self.action in ("replaced", "removed")


@dataclass(frozen=True, kw_only=True)
class Permission:
    """A policy's statement that is added (or removed), as the CDK's engine puts it."""

    added: bool
    effect: str
    principal: str
    action: str
    resource: str
    condition: str

    def is_within(self, other: Permission) -> bool:
        """Whether it allows nothing that `other` does not; one that says NOT is not looked into."""
        if (self.effect, self.principal, self.condition) != (
            other.effect,
            other.principal,
            other.condition,
        ):
            return False
        pairs = ((self.action, other.action), (self.resource, other.resource))
        return not any("NOT " in text for pair in pairs for text in pair) and all(
            set(mine.splitlines()) <= set(others.splitlines()) for mine, others in pairs
        )


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A way through the network that is added (or taken away); `inbound`: into a security group."""

    added: bool
    inbound: bool
    what: str


@dataclass(frozen=True, kw_only=True)
class Unit:
    """An environment, or the stacks outside."""

    name: str
    status: Literal["added", "changed", "removed"]
    changes: tuple[Change, ...]
    values: tuple[Value, ...]
    """Outputs, parameters and other parts of templates."""
    hosts: tuple[str, ...]
    """The Auto Scaling groups whose hosts are replaced."""
    widened: bool
    permissions: tuple[Permission, ...]
    openings: tuple[Opening, ...]
    user_data: str
    """A unified diff; empty when nothing changes."""
    before: Cost
    after: Cost

    @property
    def lost(self) -> list[Change]:
        return [change for change in self.changes if change.loss and not change.reason]

    @property
    def acknowledged(self) -> list[Change]:
        return [change for change in self.changes if change.loss and change.reason]

    @property
    def opened(self) -> list[Opening]:
        return [opening for opening in self.openings if opening.added]

    @property
    def dearer(self) -> Decimal:
        """USD a month; negative when it becomes cheaper."""
        return self.after.total - self.before.total

    def count(self, action: Action) -> int:
        return sum(change.action == action for change in self.changes)


@dataclass(frozen=True, kw_only=True)
class Review:
    """Everything that a change does. `units`: only those in which something changes."""

    units: tuple[Unit, ...]
    host_files: str
    """A unified diff of what every host unpacks."""
    unmatched: tuple[str, ...] = ()
    """New acknowledgements of what this change does not lose."""
    spent: tuple[str, ...] = ()
    """Acknowledgements that were for an earlier change."""
    region: str = field(default="")
    """Whose list prices the costs are."""

    @property
    def verdict(self) -> Verdict:
        lost = any(unit.lost for unit in self.units)
        return Verdict.WRONG if lost or self.unmatched else Verdict.FINE


def templates_changed(base: Files, current: Files) -> dict[str, tuple[Template, Template]]:
    """The templates that differ, before and after, by unit and stack: "prod/Network"."""
    return _pairs(_sides(base, current))


def _pairs(sides: _Sides) -> dict[str, tuple[Template, Template]]:
    return {
        f"{name}/{stack}": pair
        for name, (before, after) in sides.items()
        for stack in sorted({*before.templates, *after.templates})
        if (pair := (before.templates.get(stack, {}), after.templates.get(stack, {})))[0] != pair[1]
    }


def examine(
    base: Files,
    current: Files,
    *,
    entries: Sequence[acknowledged.Entry] = (),
    spent: Sequence[acknowledged.Entry] = (),
    compare: Callable[[Mapping[str, tuple[Template, Template]]], Mapping[str, Changes]] = compare,
) -> Review:
    """Compare two sets of reviewed files (review/snapshots.py).

    `entries` are acknowledged.toml's; those that are in `spent`, the base's, count no more.
    `compare` answers for the templates that differ.

    Raises:
        CannotTell: the diff engine cannot be asked.
    """
    prices = Prices()
    sides = _sides(base, current)
    pairs = _pairs(sides)
    answers = compare(pairs)
    new = [entry for entry in entries if entry not in spent]
    reasons: dict[tuple[str, str, str], str] = {
        (entry.environment, entry.id, entry.change): entry.reason for entry in new
    }
    units = []
    for name, (before, after) in sides.items():
        changes = {
            key.removeprefix(f"{name}/"): (pair, answers[key])
            for key, pair in pairs.items()
            if key.startswith(f"{name}/")
        }
        if changes:
            units.append(_unit(name, before, after, changes, prices, reasons))
    lost = {
        (unit.name, change.id, change.action)
        for unit in units
        for change in unit.changes
        if change.loss
    }
    return Review(
        units=tuple(units),
        host_files=_lines_changed(HOST_FILES, base, current),
        unmatched=tuple(
            str(entry) for entry in new if (entry.environment, entry.id, entry.change) not in lost
        ),
        spent=tuple(str(entry) for entry in entries if entry in spent),
        region=prices.region,
    )


class _Side:
    """A unit's templates and user data, on one side of the comparison."""

    def __init__(self, files: Files, name: str) -> None:
        own = {file: text for file, text in files.items() if _unit_of(file) == name}
        self.files = own
        self.templates: Mapping[str, Template] = {
            file.rpartition("/")[2].removesuffix(".json"): json.loads(text)
            for file, text in own.items()
            if file.endswith(".json")
        }
        # What a host gets is part of its launch template again, in short, for the diff engine.
        host = own.get(f"{name}/{USER_DATA}", "") + files.get(HOST_FILES, "")
        digest = hashlib.sha256(host.encode()).hexdigest()[:12]
        for template in self.templates.values():
            for resource in template.get("Resources", {}).values():
                if resource["Type"] == "AWS::EC2::LaunchTemplate":
                    shown = resource["Properties"]["LaunchTemplateData"]["UserData"]
                    shown[SEE] = digest


_Sides = Mapping[str, tuple[_Side, _Side]]


def _sides(base: Files, current: Files) -> _Sides:
    names = sorted({_unit_of(file) for file in (*base, *current) if file != HOST_FILES})
    return {name: (_Side(base, name), _Side(current, name)) for name in names}


def _unit_of(file: str) -> str:
    return file.split("/")[0] if "/" in file else ELSEWHERE


def _unit(
    name: str,
    before: _Side,
    after: _Side,
    compared: Mapping[str, tuple[tuple[Template, Template], Changes]],
    prices: Prices,
    reasons: Mapping[tuple[str, str, str], str],
) -> Unit:
    changes: list[Change] = []
    openings: list[Opening] = []
    permissions: list[Permission] = []
    values: list[Value] = []
    hosts: list[str] = []
    for stack, ((old, new), answer) in compared.items():
        stateful = _stateful(old)
        in_stack = [_change(stack, resource, stateful) for resource in answer["resources"]]
        changes += in_stack
        hosts += _replaced_hosts(stack, in_stack, new)
        openings += _openings(answer, in_stack)
        permissions += _permissions(answer)
        values += _values(stack, answer, old, new)
    reviewed = (
        replace(change, reason=reasons.get((name, change.id, change.action), ""))
        if change.loss
        else change
        for change in changes
    )
    return Unit(
        name=name,
        status="changed" if before.files and after.files else "added" if after.files else "removed",
        changes=tuple(sorted(reviewed, key=lambda change: (not change.loss, change.id))),
        values=tuple(values),
        hosts=tuple(hosts),
        widened=any(answer["broadened"] for _pair, answer in compared.values())
        and not _are_fewer(permissions),
        permissions=tuple(permissions),
        openings=tuple(openings),
        user_data=_lines_changed(f"{name}/{USER_DATA}", before.files, after.files),
        before=prices.cost(before.templates),
        after=prices.cost(after.templates),
    )


def _change(stack: str, resource: Mapping[str, Any], stateful: Collection[str]) -> Change:
    logical_id, kind = resource["id"], resource["type"]
    impact = resource["impact"]
    parts = tuple(
        part
        for changed in (*resource["properties"], *resource["attributes"])
        for part in _parts(changed["name"], changed["before"], changed["after"], changed["impact"])
    )
    note = _WHOSE.get(impact, "")
    if impact in ("NO_CHANGE", "WILL_UPDATE") and _is_custom(kind):
        # The engine knows nothing of a custom resource: its handler's answer replaces it or not.
        own = {part.path.split(".")[0] for part in parts} - {"ServiceToken", "ServiceTimeout"}
        if own.intersection(changed["name"] for changed in resource["properties"]):
            impact, note = "MAY_REPLACE", "perhaps: its handler decides"
    return Change(
        id=f"{stack}/{logical_id}",
        type=kind,
        action=_ACTIONS[impact],
        stateful=logical_id in stateful,
        parts=parts,
        note=note or _refused(kind, resource["properties"]),
    )


def _is_custom(kind: str) -> bool:
    return kind.startswith("Custom::") or kind == "AWS::CloudFormation::CustomResource"


def _refused(kind: str, properties: Sequence[Mapping[str, Any]]) -> str:
    """What EC2 does to no volume: the deployment fails, and the volume stays as it is."""
    for changed in properties if kind == "AWS::EC2::Volume" else ():
        if changed["name"] == "AvailabilityZone" or (
            changed["name"] == "Size" and int(changed["after"]) < int(changed["before"])
        ):
            return f"CloudFormation will refuse this change of {changed['name']}"
    return ""


def _stateful(template: Template) -> set[str]:
    """The logical ids of what is not to be lost, the keys that secrets are encrypted with too."""
    resources = template.get("Resources", {})
    keys = [
        resource["Properties"].get("KmsKeyId")
        for resource in resources.values()
        if resource["Type"] == "AWS::SecretsManager::Secret"
    ]
    return {
        logical_id
        for logical_id, resource in resources.items()
        if resource["Type"] in STATEFUL_TYPES
    } | {
        reference
        for key in keys
        if isinstance(key, dict)
        for reference in [key.get("Ref") or key.get("Fn::GetAtt", [""])[0]]
        if reference in resources
    }


def _replaced_hosts(stack: str, changes: Sequence[Change], after: Template) -> Iterator[str]:
    changed = {
        change.id.removeprefix(f"{stack}/"): {part.path.split(".")[0] for part in change.parts}
        for change in changes
        if change.action in ("changed", "replaced")
    }
    for logical_id, resource in after.get("Resources", {}).items():
        if resource["Type"] != "AWS::AutoScaling::AutoScalingGroup":
            continue
        used = resource["Properties"]["LaunchTemplate"]["LaunchTemplateId"].get("Ref")
        new_version = "LaunchTemplateData" in changed.get(used, set())
        if new_version or changed.get(logical_id, set()) & ROLLING:
            yield f"{stack}/{logical_id}"


def _openings(answer: Changes, changes: Sequence[Change]) -> Iterator[Opening]:
    for direction in ("ingress", "egress"):
        for added in (True, False):
            for rule in answer[direction]["added" if added else "removed"]:
                way = "from" if direction == "ingress" else "to"
                yield Opening(
                    added=added,
                    inbound=direction == "ingress",
                    what=f"{rule['protocol']} {way} {rule['peer']} ({rule['group']})",
                )
    for change in changes:
        public = [part for part in change.parts if part.path.split(".")[-1] in PUBLIC_ADDRESS]
        if change.type in NETWORK_TYPES:
            removed = change.action == "removed"
            what = f"{change.type} {change.id} {change.action}"
            yield Opening(added=not removed, inbound=False, what=what)
        for part in public:
            what = f"{change.id} {part.path}: {part.before} becomes {part.after}"
            yield Opening(added=part.after == "true", inbound=False, what=what)


def _permissions(answer: Changes) -> Iterator[Permission]:
    for added in (True, False):
        which = "added" if added else "removed"
        for statement in answer["statements"][which]:
            yield Permission(added=added, **statement)
        for policy in answer["managed_policies"][which]:
            yield Permission(
                added=added,
                effect="managed policy",
                principal=policy["identity"],
                action=policy["policy"],
                resource="",
                condition="",
            )


def _are_fewer(permissions: Sequence[Permission]) -> bool:
    """Whether every statement that is added is part of one that is removed.

    To the engine an added statement is a wider permission, even when it has an action less than
    before.
    """
    removed = [permission for permission in permissions if not permission.added]
    return all(
        permission.effect == "Allow" and any(map(permission.is_within, removed))
        for permission in permissions
        if permission.added
    ) and all(permission.effect == "Allow" for permission in removed)


def _values(stack: str, answer: Changes, before: Template, after: Template) -> Iterator[Value]:
    for kind in ("output", "parameter"):
        for value in answer[f"{kind}s"]:
            old, new = ("" if side is None else _shown(side) for side in _sides_of(value))
            yield Value(what=f"{stack}/{value['id']} ({kind})", before=old, after=new)
    for key in sorted({*before, *after} - {"Resources", "Outputs", "Parameters"}):
        if before.get(key) != after.get(key):
            old, new = (_shown(side[key]) if key in side else "" for side in (before, after))
            yield Value(what=f"{stack}: {key}", before=old, after=new)


def _sides_of(value: Mapping[str, Any]) -> tuple[Any, Any]:
    """An output's or parameter's own value where that alone differs, else the whole."""
    before, after = value["before"], value["after"]
    for key in ("Value", "Default"):
        if before and after and before.get(key) != after.get(key):
            return before.get(key), after.get(key)
    return before, after


def _parts(path: str, before: Any, after: Any, impact: str) -> Iterator[Part]:
    """The values that differ, as deep down as they can be told apart."""
    if before == after:
        return
    if path.endswith(f".{SEE}"):
        path = path.removesuffix(f".{SEE}")
        yield Part(path=path, before="as it was", after="as below, line by line", impact=impact)
    elif _is_tree(before) and _is_tree(after):
        for key in sorted({*before, *after}):
            yield from _parts(f"{path}.{key}", before.get(key), after.get(key), impact)
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) == len(after):
            for index, (old, new) in enumerate(zip(before, after, strict=True)):
                yield from _parts(f"{path}.{index}", old, new, impact)
        else:
            for index, old in enumerate(before):
                if old not in after:
                    yield from _parts(f"{path}.{index}", old, None, impact)
            for index, new in enumerate(after):
                if new not in before:
                    yield from _parts(f"{path}.{index}", None, new, impact)
    else:
        yield Part(path=path, before=_shown(before), after=_shown(after), impact=impact)


def _is_tree(value: Any) -> bool:
    """Whether to look into it: a function such as {"Ref": ...} is one value."""
    return isinstance(value, dict) and not (
        len(value) == 1 and next(iter(value)).startswith(("Ref", "Fn::"))
    )


def _shown(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, str) or (isinstance(value, dict) and not _is_tree(value)):
        try:
            return joined(value)
        except (AttributeError, TypeError, ValueError):
            pass  # a function with a structure of its own
    return json.dumps(value)


def _lines_changed(file: str, base: Files, current: Files) -> str:
    return "\n".join(
        difflib.unified_diff(
            base.get(file, "").splitlines(),
            current.get(file, "").splitlines(),
            fromfile=file,
            tofile=file,
            lineterm="",
        )
    )
