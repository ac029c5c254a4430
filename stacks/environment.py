"""The settings of one environment: read from TOML, checked before anything is synthesised.

Every fault is reported with the file, the key and the remedy, all faults at once. A file with a
suffix is a sandbox: the same environment once more, under a name of its own. This module imports
neither the CDK nor boto3: operators' commands read settings too and should start quickly.
"""

import datetime
import functools
import ipaddress
import itertools
import math
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from publicsuffixlist import PublicSuffixList
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from stacks.settings import (
    LABEL,
    Settings,
    check_account,
    check_domain,
    check_mailbox,
    check_region,
    faults,
    invalid,
    quoted,
)

EXPLAINED: Final = "environments/example.toml explains every key"
# The environment variable with the suffix of a sandbox; the callers of `load` read it.
SUFFIX_VARIABLE: Final = "POSTERN_SUFFIX"

# Linux refuses a longer host name (HOST_NAME_MAX), and the sending domain is the host's name.
LONGEST_HOST_NAME: Final = 64
# The network is divided into sixteen subnets, and a subnet of AWS has a prefix of /16 to /28.
SMALLEST_VPC_PREFIX: Final = 24
LARGEST_VPC_PREFIX: Final = 16
MOST_ZONES: Final = 6
# What the tags before it leave of a DMARC record's 255 bytes.
LONGEST_REPORT_ADDRESS: Final = 200
# Ample for a script, and far from what a host could not keep in memory while it unpacks its files.
LARGEST_SCRIPT_BYTES: Final = 1024 * 1024
# Every boot checks the file system (e2fsck), within the 15 minutes that a deployment waits.
LARGEST_QUEUE_GIB: Final = 512
# Enough to say something, and what a field of AWS's form takes beside everything else.
SHORTEST_USE_CASE: Final = 60
LONGEST_USE_CASE: Final = 1000
# A mailbox that is gone may be given to somebody else; a year is long for not asking again.
LONGEST_SUPPRESSION_DAYS: Final = 365
# Of clients: a name is in the secret's description and in the log, the limits are sendmail's.
LONGEST_CLIENT_NAME: Final = 32
MOST_CLIENT_NAMES: Final = 20
# A security group's rules admit sixty of each kind unless AWS raises that.
MOST_SOURCES: Final = 20
LARGEST_CLIENT_PREFIX: Final = 8
MOST_CLIENT_CONNECTIONS: Final = 200
MOST_CONNECTIONS_PER_MINUTE: Final = 6000
# Below the sending domain, where clients submit.
SUBMISSION_LABEL: Final = "submission"
# A certificate has its first name as its common name too (RFC 5280, ub-common-name).
LONGEST_COMMON_NAME: Final = 64
# A plan is a line of the user data, which has little room; nobody warms an address up for so long.
LONGEST_WARM_UP_DAYS: Final = 90
# Google's sender guidelines call doubling at once a reason to be limited; a day is not at once.
LARGEST_GROWTH: Final = 2
RFC_1918: Final = tuple(
    ipaddress.IPv4Network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
)
# A VPC's addresses may be shared address space too, which clusters take for their containers.
RFC_6598: Final = ipaddress.IPv4Network("100.64.0.0/10")
# Families on the Xen hypervisor: their volumes do not appear as NVMe devices, which is how the host
# recognises its queue volume. https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-nitro-instances.html
# fmt: off
XEN_FAMILIES: Final = frozenset({
    "c1", "c3", "c4", "cc2", "cr1", "d2", "f1", "g2", "g3", "g3s", "h1", "hs1",
    "i2", "i3", "m1", "m2", "m3", "m4", "p2", "p3", "r3", "r4", "t1", "t2", "x1", "x1e",
})
# fmt: on

# Of an environment: as a part of names that AWS limits, the shortest to 64 characters.
LONGEST_NAME: Final = 31
LONGEST_SUFFIX: Final = 20

NAME: Final = re.compile(rf"[a-z][a-z0-9-]{{0,{LONGEST_NAME - 1}}}")
# https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html
TAG_KEY: Final = re.compile(r"[\w .:/=+@-]{1,128}")
TAG_VALUE: Final = re.compile(r"[\w .:/=+@-]{0,256}")
INSTANCE_TYPE: Final = re.compile(
    r"(?P<series>[a-z]+)(?P<generation>\d+)(?P<attributes>[a-z-]*)\.(?P<size>[a-z0-9-]+)"
)

Architecture = Literal["amd64", "arm64"]
DmarcPolicy = Literal["none", "quarantine", "reject"]
Approval = Literal["permissions", "always"]


class InvalidEnvironment(Exception):
    """An environment's file cannot be used; the text is the whole message for whoever edits it."""


def _check_ec2_id(text: str, *, kind: str, prefix: str, shown_by: str) -> str:
    """The id of something of EC2's: its kind's prefix, and 8 or 17 hexadecimal digits."""
    if not re.fullmatch(rf"{prefix}-([0-9a-f]{{8}}|[0-9a-f]{{17}})", text):
        raise invalid(
            f'"{text}" is not {kind}; write it as `aws ec2 {shown_by}` shows it, such as '
            f'"{prefix}-0123456789abcdef0"'
        )
    return text


def _check_number_of_sources(sources: Collection[str]) -> None:
    if len(sources) > MOST_SOURCES:
        raise invalid(
            f"{len(sources)} are more rules than a security group should have; write at most "
            f"{MOST_SOURCES}, larger ones if need be"
        )


def _check_zone_is_used(zone: str, zones: Collection[str]) -> None:
    if zone not in zones:
        raise invalid(
            f'"{zone}" is not in availability_zones; write one of {quoted(zones)}, or add the '
            "zone there",
            key=zone,
        )


@functools.cache
def _known_instance_types() -> frozenset[str]:
    """Every instance type that the pinned botocore knows; asked only once a name looks right."""
    import botocore.session

    ec2 = botocore.session.get_session().get_service_model("ec2")
    return frozenset(ec2.shape_for("InstanceType").enum)


@functools.cache
def _public_suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def _organizational_domain(domain: str) -> str:
    """The registered domain above `domain`.

    RFC 9990 finds it with DNS look-ups (a tree walk). Synthesis makes none, so the public suffix
    list, which RFC 7489 used before, stands in for them.
    """
    return _public_suffixes().privatesuffix(domain) or domain


# TOML has arrays only; a strict tuple would refuse them.
_Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class HostedZone(Settings):
    """The Route 53 public hosted zone that already exists and that the records go into."""

    id: str
    name: str

    @field_validator("id")
    @classmethod
    def _check_id(cls, zone_id: str) -> str:
        if not re.fullmatch(r"Z[A-Z0-9]{4,31}", zone_id):
            raise invalid(
                f'"{zone_id}" is not a hosted zone id; write it as `aws route53 list-hosted-zones` '
                'shows it, without "/hostedzone/", such as "Z0123456789ABCDEFGHIJ"'
            )
        return zone_id

    _check_name = field_validator("name")(check_domain)


class Dkim(Settings):
    """The DKIM keys: one per selector, all published, one of them signing."""

    selectors: _Names
    signing: str

    @field_validator("selectors")
    @classmethod
    def _check_selectors(cls, selectors: tuple[str, ...]) -> tuple[str, ...]:
        for selector in selectors:
            if not LABEL.fullmatch(selector):
                raise invalid(
                    f'"{selector}" is not a selector; write lower-case letters, digits and inner '
                    'hyphens, such as "s2026a"'
                )
            if selectors.count(selector) > 1:
                raise invalid(f'"{selector}" is in the list twice; remove one of them')
        return selectors

    @field_validator("signing")
    @classmethod
    def _check_signing(cls, signing: str, info: ValidationInfo) -> str:
        selectors = info.data.get("selectors")
        if selectors is not None and signing not in selectors:
            raise invalid(
                f'"{signing}" is not in dkim.selectors; write one of {quoted(selectors)}, or add '
                "it there and deploy before it signs"
            )
        return signing


class Dmarc(Settings):
    """What receivers are asked to do with mail that fails, and where they report."""

    policy: DmarcPolicy
    report_address: str
    external_report_authorised: bool = False

    @field_validator("report_address")
    @classmethod
    def _check_report_address(cls, address: str) -> str:
        if len(check_mailbox(address)) > LONGEST_REPORT_ADDRESS:
            raise invalid(
                f'"{address}" does not fit into the DMARC record, one string of 255 bytes; write '
                f"an address of at most {LONGEST_REPORT_ADDRESS} characters"
            )
        return address


class Network(Settings):
    """The VPC's address range; it is divided into sixteen equal subnets."""

    vpc_cidr: str

    @field_validator("vpc_cidr")
    @classmethod
    def _check_vpc_cidr(cls, cidr: str) -> str:
        try:
            network = ipaddress.IPv4Network(cidr)
        except ValueError as error:
            raise invalid(f'"{cidr}" is not a network ({error}); write "10.40.0.0/24"') from None
        if not any(network.subnet_of(private) for private in RFC_1918):
            raise invalid(
                f'"{cidr}" is not private (RFC 1918); take a range inside {quoted(RFC_1918)}'
            )
        if not LARGEST_VPC_PREFIX <= network.prefixlen <= SMALLEST_VPC_PREFIX:
            size = "small" if network.prefixlen > SMALLEST_VPC_PREFIX else "large"
            raise invalid(
                f'"{cidr}" is too {size}; write a prefix length from /{LARGEST_VPC_PREFIX} to '
                f'/{SMALLEST_VPC_PREFIX}, such as "{network.network_address}/{SMALLEST_VPC_PREFIX}"'
            )
        return cidr


class Host(Settings):
    """The mail host: its size, its queue, and what the owner adds to it."""

    instance_type: str
    queue_volume_gib: int = Field(ge=1, le=LARGEST_QUEUE_GIB)
    extra_user_data: Path | None = None

    @field_validator("instance_type")
    @classmethod
    def _check_instance_type(cls, instance_type: str) -> str:
        match = INSTANCE_TYPE.fullmatch(instance_type)
        if (
            match is None
            or match["series"] == "mac"
            or instance_type not in _known_instance_types()
        ):
            raise invalid(
                f'the architecture of "{instance_type}" is unknown; write an instance type that '
                'runs Debian, such as "t3.small" (amd64) or "t4g.small" (arm64)'
            )
        if instance_type.split(".")[0] in XEN_FAMILIES:
            raise invalid(
                f'"{instance_type}" is too old to show its queue volume as an NVMe device; write a '
                'type on the Nitro system, such as "t3.small"'
            )
        return instance_type

    @field_validator("extra_user_data", mode="before")
    @classmethod
    def _find_extra_user_data(cls, name: object, info: ValidationInfo) -> Path:
        if not isinstance(name, str):
            raise invalid('must be text in quotes: a path, such as "install-application.sh"')
        folder = (info.context or {}).get("folder", Path())
        path: Path = folder / name
        try:
            script = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise invalid(
                f'there is no file "{name}" in {folder}; write a path relative to this file, or '
                "remove the key"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise invalid(f'"{name}" cannot be read as UTF-8 text: {error}') from None
        if not script.startswith("#!"):
            raise invalid(
                f'"{name}" does not say what runs it; begin it with a line such as "#!/bin/bash"'
            )
        size = len(script.encode())
        if size > LARGEST_SCRIPT_BYTES:
            raise invalid(
                f'"{name}" has {size} bytes, and {LARGEST_SCRIPT_BYTES} are the most; let it fetch '
                "what it needs instead of carrying it"
            )
        return path

    @property
    def architecture(self) -> Architecture:
        """Debian's name of the processor architecture: Graviton types carry a `g` (or are `a1`)."""
        match = INSTANCE_TYPE.fullmatch(self.instance_type)
        assert match is not None
        family = self.instance_type.split(".")[0]
        return "arm64" if "g" in match["attributes"] or family == "a1" else "amd64"

    def read_extra_user_data(self) -> str | None:
        """The owner's script, or None when the environment names none."""
        return self.extra_user_data.read_text("utf-8") if self.extra_user_data else None


class Mail(Settings):
    """What is sent, in the words that AWS reads before it opens port 25."""

    use_case: str | None = None

    @field_validator("use_case")
    @classmethod
    def _check_use_case(cls, text: str) -> str:
        text = " ".join(text.split())
        if not SHORTEST_USE_CASE <= len(text) <= LONGEST_USE_CASE:
            raise invalid(
                f"has {len(text)} characters; write {SHORTEST_USE_CASE} to {LONGEST_USE_CASE}, a "
                "paragraph that says who gets which mail and why, and how much a day"
            )
        return text


class Suppressions(Settings):
    """For how many days a recipient that does not exist is not tried again; 0 is off."""

    days: int = 30

    @field_validator("days")
    @classmethod
    def _check_days(cls, days: int) -> int:
        if not 0 <= days <= LONGEST_SUPPRESSION_DAYS:
            raise invalid(
                f"{days} is no time to suppress a recipient for; write 1 to "
                f"{LONGEST_SUPPRESSION_DAYS} days, or 0 to learn no recipient"
            )
        return days


class Clients(Settings):
    """Who else in the VPC, or in one that is peered with it, may submit mail, and how much.

    `credentials` are names: each gets a password of its own. The limits are for each source address
    at each host.
    """

    cidrs: tuple[str, ...] = Field(strict=False, default=())
    security_groups: tuple[str, ...] = Field(strict=False, default=())
    credentials: _Names
    port_25: bool = False
    connections: int = Field(default=20, ge=1, le=MOST_CLIENT_CONNECTIONS)
    connections_per_minute: int = Field(default=120, ge=1, le=MOST_CONNECTIONS_PER_MINUTE)

    @field_validator("cidrs")
    @classmethod
    def _check_cidrs(cls, cidrs: tuple[str, ...]) -> tuple[str, ...]:
        _check_number_of_sources(cidrs)
        networks: dict[str, ipaddress.IPv4Network] = {}
        for cidr in cidrs:
            try:
                network = ipaddress.IPv4Network(cidr)
            except ValueError as error:
                raise invalid(
                    f'"{cidr}" is not a network ({error}); write "10.20.0.0/16"'
                ) from None
            if network.prefixlen < LARGEST_CLIENT_PREFIX:
                raise invalid(
                    f'"{cidr}" is far more than the networks of your clients; write each one, such '
                    'as "10.20.0.0/16"'
                )
            if not any(network.subnet_of(private) for private in (*RFC_1918, RFC_6598)):
                raise invalid(
                    f'"{cidr}" is not private, and clients come from inside; take a range inside '
                    f"{quoted((*RFC_1918, RFC_6598))}"
                )
            for other, its_network in networks.items():
                if network.overlaps(its_network):
                    raise invalid(f'"{cidr}" overlaps "{other}"; write the larger one only')
            networks[cidr] = network
        return cidrs

    @field_validator("security_groups")
    @classmethod
    def _check_security_groups(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        _check_number_of_sources(groups)
        for group in groups:
            _check_ec2_id(
                group, kind="a security group", prefix="sg", shown_by="describe-security-groups"
            )
            if groups.count(group) > 1:
                raise invalid(f'"{group}" is in the list twice; remove one of them')
        return groups

    @field_validator("credentials")
    @classmethod
    def _check_credentials(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) > MOST_CLIENT_NAMES:
            raise invalid(f"{len(names)} are too many; write at most {MOST_CLIENT_NAMES}")
        for name in names:
            if not LABEL.fullmatch(name) or len(name) > LONGEST_CLIENT_NAME:
                raise invalid(
                    f'"{name}" is no name for a client; write at most {LONGEST_CLIENT_NAME} '
                    'lower-case letters, digits and inner hyphens, such as "web-shop"'
                )
            if names.count(name) > 1:
                raise invalid(f'"{name}" is in the list twice; remove one of them')
        return names

    @model_validator(mode="after")
    def _check_there_are_any(self) -> "Clients":
        if not self.cidrs and not self.security_groups:
            raise invalid(
                "says from where nobody may submit; write cidrs, security_groups or both, or "
                "remove the table"
            )
        return self


class WarmUp(Settings):
    """How many messages a day a new address sends; each zone's host has a new address of its own.

    Either a list, or a first day and a factor a day up to `until`. After the last day there is no
    limit. `plan` is the list in both cases.
    """

    start: datetime.date
    messages_a_day: tuple[int, ...] | None = Field(default=None, strict=False)
    first_day: int | None = Field(default=None, ge=1)
    growth: float | None = None
    until: int | None = Field(default=None, ge=1)

    @field_validator("start", mode="before")
    @classmethod
    def _check_start(cls, start: object) -> object:
        if type(start) is not datetime.date:
            raise invalid("must be a day, without quotes; write one such as 2026-12-01")
        return start

    @field_validator("messages_a_day", mode="before")
    @classmethod
    def _check_messages_a_day(cls, messages: object) -> object:
        if not isinstance(messages, (list, tuple)) or not messages:
            raise invalid("must be a list; write each day's messages, such as [200, 400, 800]")
        for count in messages:
            if type(count) is not int or count < 1:
                raise invalid(f"{count!r} is no number of messages; write whole numbers from 1")
        for before, after in itertools.pairwise(messages):
            if after < before:
                raise invalid(
                    f"{after} comes after {before}, and a plan grows; write the days in their order"
                )
        if len(messages) > LONGEST_WARM_UP_DAYS:
            raise invalid(
                f"has {len(messages)} days; write at most {LONGEST_WARM_UP_DAYS}: after the last "
                "one nothing is limited"
            )
        return messages

    @field_validator("growth", mode="before")
    @classmethod
    def _check_growth(cls, growth: object) -> object:
        if type(growth) not in (int, float) or not 1 < growth <= LARGEST_GROWTH:  # type: ignore[operator]
            raise invalid(
                f"{growth!r} is no growth; write a factor a day above 1 and up to "
                f"{LARGEST_GROWTH}, such as 1.5"
            )
        return growth

    @model_validator(mode="after")
    def _check_form(self) -> "WarmUp":
        growing = {"first_day": self.first_day, "growth": self.growth, "until": self.until}
        given = [key for key, value in growing.items() if value is not None]
        if self.messages_a_day is not None and given:
            raise invalid("is the whole plan already; remove it, or messages_a_day", key=given[0])
        if self.messages_a_day is None and not given:
            raise invalid(
                "is missing; write each day's messages, or first_day, growth and until",
                key="messages_a_day",
            )
        if self.messages_a_day is None:
            for key, value in growing.items():
                if value is None:
                    raise invalid(f"is missing; write it, {EXPLAINED}", key=key)
            assert self.first_day is not None
            assert self.until is not None
            if self.until < self.first_day:
                raise invalid(
                    f"{self.until} is less than first_day; write what a day may send at last",
                    key="until",
                )
            if len(self.plan) > LONGEST_WARM_UP_DAYS:
                raise invalid(
                    f"{self.growth} takes more than {LONGEST_WARM_UP_DAYS} days to get to "
                    f"{self.until}; write a larger one, or a lower until",
                    key="growth",
                )
        return self

    @property
    def plan(self) -> tuple[int, ...]:
        """The messages of each day, the first one's first."""
        if self.messages_a_day is not None:
            return self.messages_a_day
        assert self.first_day is not None
        assert self.growth is not None
        assert self.until is not None
        # In logarithms, since a tiny growth would be a long list.
        days = 1 + math.floor(math.log(self.until / self.first_day, self.growth) + 1e-9)
        days = min(days, LONGEST_WARM_UP_DAYS + 1)
        return tuple(round(self.first_day * self.growth**day) for day in range(days))

    @property
    def as_host_setting(self) -> str:
        """As a host's settings have it: "2026-12-01:200,300,450"."""
        return f"{self.start.isoformat()}:{','.join(map(str, self.plan))}"


class ElasticIp(Settings):
    """An address that exists already, whose reputation is worth keeping."""

    allocation_id: str
    address: str

    @field_validator("allocation_id")
    @classmethod
    def _check_allocation_id(cls, allocation_id: str) -> str:
        return _check_ec2_id(
            allocation_id, kind="an allocation id", prefix="eipalloc", shown_by="describe-addresses"
        )

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str) -> str:
        try:
            parsed = ipaddress.IPv4Address(address)
        except ValueError:
            raise invalid(
                f'"{address}" is not an IPv4 address; write one such as "203.0.113.10"'
            ) from None
        if any(parsed in private for private in RFC_1918):
            raise invalid(f'"{address}" is private; write the Elastic IP itself')
        return address


class QueueVolume(Settings):
    """A queue volume that was kept, with the mail on it."""

    volume_id: str

    @field_validator("volume_id")
    @classmethod
    def _check_volume_id(cls, volume_id: str) -> str:
        return _check_ec2_id(
            volume_id, kind="a volume id", prefix="vol", shown_by="describe-volumes"
        )


class EnvironmentDelivery(Settings):
    """When the pipeline deploys this environment, and before what it asks a person.

    `order` counts from 1, and each environment waits until the one before it passed its gate.
    `approval` is "permissions" when a person is asked only about a deployment that broadens
    permissions, and "always" when about each.
    """

    order: int = Field(ge=1)
    approval: Approval = "permissions"


class Environment(Settings):
    """One environment: everything that distinguishes it from another, and nothing else.

    `file` is where it was read from, and `suffix` is a sandbox's own part of the name. Without
    `delivery` only people deploy it, without `warm_up` no day's messages are limited, and
    `alert_address` is the postmaster's where the file has none.
    """

    # A validator sees the fields above its own, so the order here is the order of dependence.
    file: Path
    suffix: str | None = None
    account: str
    region: str
    availability_zones: _Names
    hosted_zone: HostedZone
    sending_domain: str
    postmaster: str
    alert_address: str = Field(default_factory=lambda settings: str(settings["postmaster"]))
    keep_identity: bool = True
    dkim: Dkim
    dmarc: Dmarc
    network: Network
    host: Host
    mail: Mail = Mail()
    suppressions: Suppressions = Suppressions()
    clients: Clients | None = None
    warm_up: WarmUp | None = None
    elastic_ips: dict[str, ElasticIp] = Field(default_factory=dict)
    queue_volumes: dict[str, QueueVolume] = Field(default_factory=dict)
    delivery: EnvironmentDelivery | None = None
    tags: dict[str, str] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name without `.toml`, and the suffix: `dev`, or `dev-anna`.

        It names the CDK stage, prefixes the stacks, and is every tag's and metric's environment.
        """
        return self.file.stem if self.suffix is None else f"{self.file.stem}-{self.suffix}"

    @property
    def submission_name(self) -> str:
        """Where clients submit, when the environment has any: what their certificate names."""
        return f"{SUBMISSION_LABEL}.{self.sending_domain}"

    @property
    def command_prefix(self) -> str:
        """What a command line about it begins with: a sandbox's suffix, or nothing."""
        return "" if self.suffix is None else f"{SUFFIX_VARIABLE}={self.suffix} "

    @field_validator("file")
    @classmethod
    def _check_file(cls, file: Path) -> Path:
        if not NAME.fullmatch(file.stem):
            raise invalid(
                f'"{file.stem}" cannot name a stack; use at most {LONGEST_NAME} lower-case '
                'letters, digits and hyphens, a letter first, such as "prod.toml"'
            )
        return file

    _check_account = field_validator("account")(check_account)
    _check_region = field_validator("region")(check_region)

    @field_validator("availability_zones")
    @classmethod
    def _check_zones(cls, zones: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        region = info.data.get("region")
        if len(zones) > MOST_ZONES:
            raise invalid(f"{len(zones)} zones are too many; write at most {MOST_ZONES}")
        for zone in zones:
            if region is not None and not re.fullmatch(re.escape(region) + "[a-z]", zone):
                raise invalid(
                    f'"{zone}" is not an availability zone of {region}; write zones such as '
                    f'"{region}a"'
                )
            if zones.count(zone) > 1:
                raise invalid(f'"{zone}" is in the list twice; remove one of them')
        return zones

    @field_validator("sending_domain")
    @classmethod
    def _check_sending_domain(cls, domain: str, info: ValidationInfo) -> str:
        check_domain(domain)
        if len(domain) > LONGEST_HOST_NAME:
            raise invalid(
                f'"{domain}" is also the host name, and Linux allows {LONGEST_HOST_NAME} '
                f"characters; it has {len(domain)}: write a shorter one"
            )
        zone = info.data.get("hosted_zone")
        if zone is None:
            return domain
        if domain == zone.name:
            raise invalid(
                f'"{domain}" is the apex of the hosted zone, whose A and TXT records belong to '
                f"others (the web site, the SPF of your mailboxes); write a subdomain that nothing "
                f'else uses, such as "mail.{zone.name}"'
            )
        if not domain.endswith(f".{zone.name}"):
            raise invalid(
                f'"{domain}" is not inside the hosted zone "{zone.name}"; write a subdomain of it, '
                f'such as "mail.{zone.name}", or the hosted zone that contains "{domain}"'
            )
        return domain

    @field_validator("postmaster", "alert_address")
    @classmethod
    def _check_own_mailbox(cls, address: str, info: ValidationInfo) -> str:
        check_mailbox(address)
        if address.rpartition("@")[2] == info.data.get("sending_domain"):
            raise invalid(
                f'"{address}" is at the sending domain, which has no MX record and receives '
                "nothing; write a mailbox elsewhere that a person reads"
            )
        return address

    @field_validator("dmarc")
    @classmethod
    def _check_dmarc(cls, dmarc: Dmarc, info: ValidationInfo) -> Dmarc:
        sending_domain = info.data.get("sending_domain")
        if sending_domain is None:
            return dmarc
        receiver = dmarc.report_address.rpartition("@")[2]
        if receiver == sending_domain:
            raise invalid(
                f'"{dmarc.report_address}" is at the sending domain, which has no MX record and '
                "receives nothing; write a mailbox elsewhere, such as "
                f'"dmarc@{_organizational_domain(sending_domain)}"',
                key="report_address",
            )
        external = _organizational_domain(receiver) != _organizational_domain(sending_domain)
        if external and not dmarc.external_report_authorised:
            raise invalid(
                f'"{dmarc.report_address}" is of another organisation than "{sending_domain}", so '
                f"receivers report there only if {receiver} says that it wants that (RFC 9990): "
                "let its owner publish the TXT record "
                f'"{sending_domain}._report._dmarc.{receiver}" with the value "v=DMARC1;" and then '
                "write external_report_authorised = true, or write an address of your own",
                key="report_address",
            )
        return dmarc

    @field_validator("clients")
    @classmethod
    def _check_clients(cls, clients: Clients | None, info: ValidationInfo) -> Clients | None:
        domain = info.data.get("sending_domain")
        name = f"{SUBMISSION_LABEL}.{domain}"
        if clients and domain and len(name) > LONGEST_COMMON_NAME:
            raise invalid(
                f'"{name}" is where clients would submit, and a certificate names at most '
                f"{LONGEST_COMMON_NAME} characters; write a shorter sending_domain, or remove the "
                "table"
            )
        return clients

    @field_validator("elastic_ips")
    @classmethod
    def _check_elastic_ips(
        cls, addresses: dict[str, ElasticIp], info: ValidationInfo
    ) -> dict[str, ElasticIp]:
        zones = info.data.get("availability_zones")
        if zones is None:
            return addresses
        for zone, elastic_ip in addresses.items():
            _check_zone_is_used(zone, zones)
            for other, its_address in addresses.items():
                if zone != other and (
                    elastic_ip.allocation_id == its_address.allocation_id
                    or elastic_ip.address == its_address.address
                ):
                    raise invalid(
                        f"{elastic_ip.allocation_id} ({elastic_ip.address}) is given to {other} "
                        "too; a NAT gateway needs an address of its own",
                        key=zone,
                    )
        return addresses

    @field_validator("queue_volumes")
    @classmethod
    def _check_queue_volumes(
        cls, volumes: dict[str, QueueVolume], info: ValidationInfo
    ) -> dict[str, QueueVolume]:
        zones = info.data.get("availability_zones")
        if zones is None:
            return volumes
        for zone, volume in volumes.items():
            _check_zone_is_used(zone, zones)
            if list(volumes.values()).count(volume) > 1:
                raise invalid(
                    f"{volume.volume_id} is given to another zone too; a volume is in one zone",
                    key=zone,
                )
        return volumes

    @field_validator("tags")
    @classmethod
    def _check_tags(cls, tags: dict[str, str]) -> dict[str, str]:
        for key in tags:
            if key.lower().startswith(("aws:", "postern:")):
                raise invalid(f'"{key}" is a reserved name; write another', key=key)
            if not TAG_KEY.fullmatch(key) or not TAG_VALUE.fullmatch(tags[key]):
                raise invalid(
                    f'"{key}" = "{tags[key]}" is no tag that AWS takes; write letters, digits, '
                    "spaces and _ . : / = + - @, up to 128 of them in the key and 256 in the value",
                    key=key,
                )
        return tags

    @model_validator(mode="after")
    def _check_longest_record_name(self) -> "Environment":
        longest = max(self.dkim.selectors, key=len)
        if len(f"{longest}._domainkey.{self.sending_domain}") > 253:
            raise invalid(f'"{longest}" makes a record name over 253 characters; shorten it')
        return self


def load(path: Path, *, suffix: str | None = None) -> Environment:
    """Read and check one environment, or with a suffix the sandbox beside it.

    A sandbox is as its file says, but for what must be its own, `<suffix>` joined to it with a
    hyphen: its name, and the first label of its sending domain. It keeps no identity, takes no kept
    address or volume into use, has no clients, and no pipeline delivers it.

    Raises InvalidEnvironment: its text names the file and, for each fault, the key and the remedy;
    SUFFIX_VARIABLE is the key of a fault that only the suffix makes.
    """
    settings = _read(path)
    environment = _checked(path, settings)
    if suffix is None:
        return environment
    if fault := _fault_of_suffix(path, suffix):
        raise InvalidEnvironment(f"{path}: {SUFFIX_VARIABLE}: {fault}")
    try:
        return _validated(path, _sandbox(settings, environment, suffix))
    except ValidationError as error:
        # The file by itself has no fault: this one came with the suffix.
        raise InvalidEnvironment(
            "\n".join(
                f'{path}: {SUFFIX_VARIABLE}: "{suffix}" makes another {key}: {message}; '
                "choose another suffix"
                for key, message in _faults(error)
            )
        ) from None


def load_all(folder: Path) -> list[Environment]:
    """Every environment of the folder, by file name, none of which takes what is another's.

    Raises InvalidEnvironment: as `load` does, with the faults of all files.
    """
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise InvalidEnvironment(
            f"{folder}: has no environment; copy example.toml of the repository to it and edit it"
        )
    environments, told = [], []
    for file in files:
        try:
            environments.append(load(file))
        except InvalidEnvironment as error:
            told.append(str(error))
    told += _faults_between(environments)
    if told:
        raise InvalidEnvironment("\n".join(told))
    return environments


def _read(path: Path) -> dict[str, Any]:
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = quoted(sorted(file.stem for file in path.parent.glob("*.toml")))
        raise InvalidEnvironment(
            f"{path}: there is no such file; {path.parent} has {known}. Copy "
            "environments/example.toml to it and edit it"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidEnvironment(f"{path}: not TOML: {error}") from None
    for key in _NOT_IN_A_FILE & settings.keys():
        raise InvalidEnvironment(f"{path}: {key}: unknown key; remove it")
    return settings


def _validated(path: Path, settings: Mapping[str, Any]) -> Environment:
    return Environment.model_validate({"file": path, **settings}, context={"folder": path.parent})


def _checked(path: Path, settings: Mapping[str, Any]) -> Environment:
    try:
        return _validated(path, settings)
    except ValidationError as error:
        told = [f"{path}: {key}: {message}" for key, message in _faults(error)]
        raise InvalidEnvironment("\n".join(told)) from None


def _faults(error: ValidationError) -> list[tuple[str, str]]:
    return faults(
        error, Environment, explained=EXPLAINED, ranges=_RANGES, not_in_a_file=_NOT_IN_A_FILE
    )


def _sandbox(settings: Mapping[str, Any], environment: Environment, suffix: str) -> dict[str, Any]:
    """The file's settings with a sandbox's own in their place.

    Where the file has another organisation's consent to reports (external_report_authorised), the
    sandbox goes by it too: many publish one record for all domains, receivers report to none that
    did not, and `postern doctor` says which it is.
    """
    host, dot, zone = environment.sending_domain.partition(".")
    own = {
        "suffix": suffix,
        "sending_domain": f"{host}-{suffix}{dot}{zone}",
        "keep_identity": False,
    }
    # Nobody is peered with its VPC, and each certificate for clients costs.
    not_shared = {"clients", "delivery", "elastic_ips", "queue_volumes"}
    return {key: value for key, value in settings.items() if key not in not_shared} | own


def _fault_of_suffix(path: Path, suffix: str) -> str | None:
    """What a suffix is not fit for, and the remedy; None when it is fit."""
    if not LABEL.fullmatch(suffix) or len(suffix) > LONGEST_SUFFIX:
        return (
            f'"{suffix}" cannot end a name; write at most {LONGEST_SUFFIX} lower-case letters, '
            'digits and inner hyphens, such as "anna"'
        )
    name = f"{path.stem}-{suffix}"
    if not NAME.fullmatch(name):
        return (
            f'"{name}" would be the environment, and {LONGEST_NAME} characters are the most; '
            "write a shorter one"
        )
    for other in sorted(path.parent.glob(f"{path.stem}-*.toml")):
        # dev with the suffix eu-anna has the name of dev-eu with the suffix anna.
        if f"{name}-".startswith(f"{other.stem}-"):
            return f'"{name}" would be an environment of {other}; choose another suffix'
    return None


def _faults_between(environments: Sequence[Environment]) -> list[str]:
    """What two environments may not have both: told at the later one, with the earlier one."""
    owners: dict[tuple[str, object], Environment] = {}
    told = []
    for environment in environments:
        for key, value, remedy in _own(environment):
            owner = owners.setdefault((key.split(".")[0], value), environment)
            if owner is not environment:
                shown = f'"{value}"' if isinstance(value, str) else value
                told.append(f"{environment.file}: {key}: {shown} is in {owner.file} too; {remedy}")
    return told


def _own(environment: Environment) -> Iterator[tuple[str, object, str]]:
    """What only one environment may have: the key, its value, and the remedy for a second one."""
    zone = environment.hosted_zone.id
    # Hosted zones of the same name are different places, of which DNS knows one.
    yield (
        "sending_domain",
        f"{environment.sending_domain} ({zone})",
        "its records can be of one environment only: write another subdomain",
    )
    for place, elastic_ip in environment.elastic_ips.items():
        remedy = "a NAT gateway needs an address of its own: remove it from one of them"
        yield f"elastic_ips.{place}.allocation_id", elastic_ip.allocation_id, remedy
        yield f"elastic_ips.{place}.address", elastic_ip.address, remedy
    for place, volume in environment.queue_volumes.items():
        remedy = "one host has it: remove it from one of them"
        yield f"queue_volumes.{place}.volume_id", volume.volume_id, remedy
    if environment.delivery is not None:
        yield (
            "delivery.order",
            environment.delivery.order,
            "they are deployed one after the other: write another number",
        )


# What `load` says of an environment, never its file.
_NOT_IN_A_FILE: Final = frozenset({"file", "suffix"})
_RANGES: Final = {
    "host.queue_volume_gib": f" from 1 to {LARGEST_QUEUE_GIB}",
    "clients.connections": f" from 1 to {MOST_CLIENT_CONNECTIONS}",
    "clients.connections_per_minute": f" from 1 to {MOST_CONNECTIONS_PER_MINUTE}",
    "suppressions.days": f" from 1 to {LONGEST_SUPPRESSION_DAYS}",
    "warm_up.first_day": " from 1",
    "warm_up.until": " from 1",
    "delivery.order": ", 1 for the first to be deployed",
}
