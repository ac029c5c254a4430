"""A wrong setting stops with one message that names the file, the key and the remedy."""

import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from stacks.environment import Environment, InvalidEnvironment, load
from tests.environments.conftest import EXAMPLE, WriteEnvironment


def _elastic_ip(
    zone: str,
    *,
    allocation_id: str = "eipalloc-0123456789abcdef0",
    address: str = "203.0.113.10",
) -> str:
    return f'[elastic_ips.{zone}]\nallocation_id = "{allocation_id}"\naddress = "{address}"\n'


def _queue_volume(zone: str, volume_id: str = "vol-0123456789abcdef0") -> str:
    return f'[queue_volumes.{zone}]\nvolume_id = "{volume_id}"\n'


def _clients(*lines: str) -> tuple[str, str]:
    return "[tags]", "\n".join(["[clients]", 'credentials = ["web"]', *lines, "[tags]"])


def _warm_up(text: str) -> str:
    return f"[warm_up]\nstart = 2026-12-01\n{text}\n[tags]"


# What is written instead of what; the key that the message names; the remedy that it gives.
FAULTS = {
    "unknown key": (
        ('region = "us-east-1"', 'region = "us-east-1"\nmx_record = true'),
        "mx_record",
        'remove it, or write one of "account", "region"',
    ),
    "misspelt key": (
        ("external_report_authorised =", "external_report_authorized ="),
        "dmarc.external_report_authorized",
        'write "external_report_authorised" if that is meant',
    ),
    "key in the wrong table": (
        ("[network]\n", '[network]\npolicy = "none"\n'),
        "network.policy",
        'remove it, or write one of "vpc_cidr"',
    ),
    "missing key": (
        ('account = "111122223333"', ""),
        "account",
        "is missing; write it, environments/example.toml explains every key",
    ),
    "use case that is a book": (
        ("about 2,000 messages", "x" * 1000),
        "mail.use_case",
        "who gets which mail and why",
    ),
    "missing key in a table": (("instance_type =", "# "), "host.instance_type", "is missing"),
    "account too short": (
        ('"111122223333"', '"11112222333"'),
        "account",
        'write its 12 digits in quotes, such as "111122223333"',
    ),
    "account without quotes": (('"111122223333"', "111122223333"), "account", "in quotes"),
    "not a Region": (('region = "us-east-1"', 'region = "virginia"'), "region", '"us-east-1"'),
    "Region in China": (
        ('region = "us-east-1"', 'region = "cn-north-1"'),
        "region",
        "write a Region outside China",
    ),
    "Region of GovCloud": (
        ('region = "us-east-1"', 'region = "us-gov-west-1"'),
        "region",
        "write a Region outside China and GovCloud",
    ),
    "zone of another Region": (
        ('"us-east-1a", "us-east-1b"', '"us-east-1a", "eu-west-1b"'),
        "availability_zones",
        '"eu-west-1b" is not an availability zone of us-east-1; write zones such as "us-east-1a"',
    ),
    "Local Zone": (
        ('"us-east-1a", "us-east-1b"', '"us-east-1-bos-1a"'),
        "availability_zones",
        "write zones such as",
    ),
    "zone twice": (
        ('"us-east-1a", "us-east-1b"', '"us-east-1a", "us-east-1a"'),
        "availability_zones",
        '"us-east-1a" is in the list twice; remove one',
    ),
    "no zone": (('["us-east-1a", "us-east-1b"]', "[]"), "availability_zones", "write at least one"),
    "too many zones": (
        (
            '["us-east-1a", "us-east-1b"]',
            str([f"us-east-1{letter}" for letter in "abcdefg"]).replace("'", '"'),
        ),
        "availability_zones",
        "write at most 6",
    ),
    "hosted zone id with its path": (
        ('"Z0123456789ABCDEFGHIJ"', '"/hostedzone/Z0123456789ABCDEFGHIJ"'),
        "hosted_zone.id",
        'without "/hostedzone/"',
    ),
    "sending domain outside the hosted zone": (
        ('sending_domain = "mail.example.com"', 'sending_domain = "mail.example.org"'),
        "sending_domain",
        'write a subdomain of it, such as "mail.example.com"',
    ),
    "sending domain that only ends like the hosted zone": (
        ('sending_domain = "mail.example.com"', 'sending_domain = "mail.notexample.com"'),
        "sending_domain",
        "is not inside the hosted zone",
    ),
    "sending domain is the apex": (
        ('sending_domain = "mail.example.com"', 'sending_domain = "example.com"'),
        "sending_domain",
        'write a subdomain that nothing else uses, such as "mail.example.com"',
    ),
    "invalid sending domain": (
        ('sending_domain = "mail.example.com"', 'sending_domain = "mail_1.example.com"'),
        "sending_domain",
        "write labels of letters, digits and inner hyphens",
    ),
    "sending domain with a final dot": (
        ('sending_domain = "mail.example.com"', 'sending_domain = "mail.example.com."'),
        "sending_domain",
        "without a final dot",
    ),
    "sending domain in capitals": (
        ('sending_domain = "mail.example.com"', 'sending_domain = "Mail.example.com"'),
        "sending_domain",
        'write "mail.example.com"',
    ),
    "sending domain longer than a host name": (
        ('sending_domain = "mail.example.com"', f'sending_domain = "{"m" * 60}.example.com"'),
        "sending_domain",
        "Linux allows 64 characters; it has 72: write a shorter one",
    ),
    "invalid hosted zone name": (
        ('name = "example.com"', 'name = "example"'),
        "hosted_zone.name",
        "is not a domain name",
    ),
    "postmaster at the sending domain": (
        ('"postmaster@example.com"', '"postmaster@mail.example.com"'),
        "postmaster",
        "write a mailbox elsewhere",
    ),
    "postmaster without a domain": (
        ('"postmaster@example.com"', '"root"'),
        "postmaster",
        'write one such as "postmaster@example.com"',
    ),
    "alert address at the sending domain": (
        ('"operations@example.com"', '"operations@mail.example.com"'),
        "alert_address",
        "write a mailbox elsewhere",
    ),
    "alert address without a domain": (
        ('"operations@example.com"', '"operations"'),
        "alert_address",
        'write one such as "postmaster@example.com"',
    ),
    "alert address left empty": (
        ('"operations@example.com"', '""'),
        "alert_address",
        "is not a plain mail address",
    ),
    "keep_identity in quotes": (
        ("keep_identity = true", 'keep_identity = "true"'),
        "keep_identity",
        "true or false, without quotes",
    ),
    "signing selector not in the list": (
        ('signing = "s2026a"', 'signing = "s2027a"'),
        "dkim.signing",
        'write one of "s2026a", "s2026b", or add it there',
    ),
    "selector twice": (
        ('["s2026a", "s2026b"]', '["s2026a", "s2026a"]'),
        "dkim.selectors",
        '"s2026a" is in the list twice; remove one',
    ),
    "invalid selector": (
        ('["s2026a", "s2026b"]', '["s2026a", "2026_b"]'),
        "dkim.selectors",
        "write lower-case letters, digits and inner hyphens",
    ),
    "unknown DMARC policy": (
        ('policy = "none"', 'policy = "block"'),
        "dmarc.policy",
        '"block" is unknown; write one of "none", "quarantine", "reject"',
    ),
    "report address at the sending domain": (
        ('"dmarc-reports@example.com"', '"dmarc@mail.example.com"'),
        "dmarc.report_address",
        'write a mailbox elsewhere, such as "dmarc@example.com"',
    ),
    "report address of another organisation": (
        ('"dmarc-reports@example.com"', '"us@reports.example.net"'),
        "dmarc.report_address",
        'publish the TXT record "mail.example.com._report._dmarc.reports.example.net" with',
    ),
    "invalid report address": (
        ('"dmarc-reports@example.com"', '"dmarc!10m@example.com"'),
        "dmarc.report_address",
        "is not a plain mail address",
    ),
    "not a network": (('"10.40.0.0/24"', '"10.40.0.1/24"'), "network.vpc_cidr", "host bits set"),
    "network too small": (
        ('"10.40.0.0/24"', '"10.40.0.0/28"'),
        "network.vpc_cidr",
        'too small; write a prefix length from /16 to /24, such as "10.40.0.0/24"',
    ),
    "network too large": (('"10.40.0.0/24"', '"10.0.0.0/8"'), "network.vpc_cidr", "too large"),
    "network not private": (
        ('"10.40.0.0/24"', '"198.51.100.0/24"'),
        "network.vpc_cidr",
        'take a range inside "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"',
    ),
    "instance type of unknown architecture": (
        ('instance_type = "t3.small"', 'instance_type = "small"'),
        "host.instance_type",
        'runs Debian, such as "t3.small" (amd64) or "t4g.small" (arm64)',
    ),
    "instance type that is a Mac": (
        ('instance_type = "t3.small"', 'instance_type = "mac2.metal"'),
        "host.instance_type",
        "is unknown",
    ),
    "instance type without NVMe": (
        ('instance_type = "t3.small"', 'instance_type = "t2.small"'),
        "host.instance_type",
        "write a type on the Nitro system",
    ),
    "queue too small": (
        ("queue_volume_gib = 20", "queue_volume_gib = 0"),
        "host.queue_volume_gib",
        "write a whole number from 1 to 512",
    ),
    "queue size as text": (
        ("queue_volume_gib = 20", 'queue_volume_gib = "20 GiB"'),
        "host.queue_volume_gib",
        "write a whole number",
    ),
    "suppressed for longer than a year": (
        ("days = 30", "days = 366"),
        "suppressions.days",
        "write 1 to 365 days, or 0 to learn no recipient",
    ),
    "suppressed for a negative time": (
        ("days = 30", "days = -1"),
        "suppressions.days",
        "write 1 to 365 days, or 0 to learn no recipient",
    ),
    "suppressed for a time in words": (
        ("days = 30", 'days = "a month"'),
        "suppressions.days",
        "write a whole number from 1 to 365",
    ),
    "warm-up that begins on no day": (
        ("[tags]", '[warm_up]\nstart = "2026-12-01"\nmessages_a_day = [1]\n[tags]'),
        "warm_up.start",
        "without quotes; write one such as 2026-12-01",
    ),
    "warm-up that begins at an hour": (
        ("[tags]", _warm_up("messages_a_day = [1]").replace("-01\n", "-01T08:00:00\n")),
        "warm_up.start",
        "must be a day",
    ),
    "warm-up without messages": (
        ("[tags]", _warm_up("")),
        "warm_up.messages_a_day",
        "write each day's messages, or first_day, growth and until",
    ),
    "warm-up in both forms": (
        ("[tags]", _warm_up("messages_a_day = [1]\ngrowth = 1.5")),
        "warm_up.growth",
        "remove it, or messages_a_day",
    ),
    "warm-up without an end": (
        ("[tags]", _warm_up("first_day = 200\ngrowth = 1.5")),
        "warm_up.until",
        "is missing; write it",
    ),
    "warm-up that shrinks": (
        ("[tags]", _warm_up("messages_a_day = [200, 400, 300]")),
        "warm_up.messages_a_day",
        "300 comes after 400, and a plan grows",
    ),
    "warm-up with a day of nothing": (
        ("[tags]", _warm_up("messages_a_day = [0, 400]")),
        "warm_up.messages_a_day",
        "0 is no number of messages; write whole numbers from 1",
    ),
    "warm-up for longer than anyone's": (
        ("[tags]", _warm_up(f"messages_a_day = {[9] * 91}")),
        "warm_up.messages_a_day",
        "has 91 days; write at most 90",
    ),
    "warm-up with a first day of nothing": (
        ("[tags]", _warm_up("first_day = 0\ngrowth = 1.5\nuntil = 10")),
        "warm_up.first_day",
        "write a whole number from 1",
    ),
    "warm-up that does not grow": (
        ("[tags]", _warm_up("first_day = 1\ngrowth = 1\nuntil = 10")),
        "warm_up.growth",
        "write a factor a day above 1 and up to 2",
    ),
    "warm-up that grows in percent": (
        ("[tags]", _warm_up("first_day = 1\ngrowth = 50\nuntil = 10")),
        "warm_up.growth",
        "50 is no growth",
    ),
    "warm-up that grows too slowly": (
        ("[tags]", _warm_up("first_day = 1\ngrowth = 1.001\nuntil = 100000")),
        "warm_up.growth",
        "takes more than 90 days to get to 100000",
    ),
    "warm-up that ends below its first day": (
        ("[tags]", _warm_up("first_day = 200\ngrowth = 1.5\nuntil = 100")),
        "warm_up.until",
        "100 is less than first_day",
    ),
    "no such script": (
        ("queue_volume_gib = 20", 'queue_volume_gib = 20\nextra_user_data = "gone.sh"'),
        "host.extra_user_data",
        "write a path relative to this file, or remove the key",
    ),
    "script that nothing runs": (
        ("queue_volume_gib = 20", 'queue_volume_gib = 20\nextra_user_data = "prod.toml"'),
        "host.extra_user_data",
        'begin it with a line such as "#!/bin/bash"',
    ),
    "Elastic IP in a zone without a host": (
        ("[tags]", _elastic_ip("us-east-1c") + "[tags]"),
        "elastic_ips.us-east-1c",
        'write one of "us-east-1a", "us-east-1b", or add the zone there',
    ),
    "Elastic IP for two zones": (
        ("[tags]", _elastic_ip("us-east-1a") + _elastic_ip("us-east-1b") + "[tags]"),
        "elastic_ips.us-east-1a",
        "a NAT gateway needs an address of its own",
    ),
    "one allocation for two zones": (
        (
            "[tags]",
            _elastic_ip("us-east-1a")
            + _elastic_ip("us-east-1b", address="203.0.113.11")
            + "[tags]",
        ),
        "elastic_ips.us-east-1a",
        "is given to us-east-1b too",
    ),
    "instance type that AWS does not have": (
        ('"t3.small"', '"t9.small"'),
        "host.instance_type",
        'write an instance type that runs Debian, such as "t3.small"',
    ),
    "report address with too long a local part": (
        ("dmarc-reports@", "d" * 65 + "@"),
        "dmarc.report_address",
        "is not a plain mail address",
    ),
    "report address too long for its record": (
        ('dmarc-reports@example.com"', f'a@{"b" * 63}.{"c" * 63}.{"d" * 63}.example.com"'),
        "dmarc.report_address",
        "at most 200 characters",
    ),
    "tag that AWS refuses": (
        ('project = "postern"', 'project = "post!ern"'),
        "tags.project",
        "up to 128 of them in the key and 256 in the value",
    ),
    "malformed allocation id": (
        ("[tags]", _elastic_ip("us-east-1a", allocation_id="eip-1") + "[tags]"),
        "elastic_ips.us-east-1a.allocation_id",
        'such as "eipalloc-0123456789abcdef0"',
    ),
    "private Elastic IP": (
        ("[tags]", _elastic_ip("us-east-1a", address="10.40.0.5") + "[tags]"),
        "elastic_ips.us-east-1a.address",
        "write the Elastic IP itself",
    ),
    "kept queue volume in a zone without a host": (
        ("[tags]", _queue_volume("us-east-1c") + "[tags]"),
        "queue_volumes.us-east-1c",
        'write one of "us-east-1a", "us-east-1b", or add the zone there',
    ),
    "kept queue volume for two zones": (
        ("[tags]", _queue_volume("us-east-1a") + _queue_volume("us-east-1b") + "[tags]"),
        "queue_volumes.us-east-1a",
        "a volume is in one zone",
    ),
    "malformed volume id": (
        ("[tags]", _queue_volume("us-east-1a", volume_id="queue") + "[tags]"),
        "queue_volumes.us-east-1a.volume_id",
        'such as "vol-0123456789abcdef0"',
    ),
    "clients from nowhere": (
        _clients(),
        "clients",
        "write cidrs, security_groups or both, or remove the table",
    ),
    "clients without credentials": (
        ("[tags]", '[clients]\ncidrs = ["10.20.0.0/16"]\n[tags]'),
        "clients.credentials",
        "is missing",
    ),
    "clients from the world": (
        _clients('cidrs = ["0.0.0.0/0"]'),
        "clients.cidrs",
        'write each one, such as "10.20.0.0/16"',
    ),
    "clients from outside": (
        _clients('cidrs = ["203.0.113.0/24"]'),
        "clients.cidrs",
        "is not private, and clients come from inside; take a range inside",
    ),
    "clients from more than what is private": (
        _clients('cidrs = ["172.0.0.0/8"]'),
        "clients.cidrs",
        "is not private",
    ),
    "clients from an address in a network": (
        _clients('cidrs = ["10.20.0.1/16"]'),
        "clients.cidrs",
        'has host bits set); write "10.20.0.0/16"',
    ),
    "clients from IPv6": (_clients('cidrs = ["fd00::/64"]'), "clients.cidrs", "is not a network"),
    "clients from a network twice": (
        _clients('cidrs = ["10.20.0.0/16", "10.20.3.0/24"]'),
        "clients.cidrs",
        'overlaps "10.20.0.0/16"; write the larger one only',
    ),
    "clients from too many networks": (
        _clients(f"cidrs = {[f'10.{n}.0.0/16' for n in range(21)]}"),
        "clients.cidrs",
        "write at most 20",
    ),
    "clients in a group by its name": (
        _clients('security_groups = ["web"]'),
        "clients.security_groups",
        'shows it, such as "sg-0123456789abcdef0"',
    ),
    "clients in a group twice": (
        _clients('security_groups = ["sg-01234567", "sg-01234567"]'),
        "clients.security_groups",
        "is in the list twice",
    ),
    "a client's name that is none": (
        ("[tags]", '[clients]\ncidrs = ["10.20.0.0/16"]\ncredentials = ["Web Shop"]\n[tags]'),
        "clients.credentials",
        'such as "web-shop"',
    ),
    "a client's name twice": (
        ("[tags]", '[clients]\ncidrs = ["10.20.0.0/16"]\ncredentials = ["a", "a"]\n[tags]'),
        "clients.credentials",
        "is in the list twice",
    ),
    "a client without a connection": (
        _clients('cidrs = ["10.20.0.0/16"]', "connections = 0"),
        "clients.connections",
        "write a whole number from 1 to 200",
    ),
    "a client without a connection a minute": (
        _clients('cidrs = ["10.20.0.0/16"]', "connections_per_minute = 0"),
        "clients.connections_per_minute",
        "write a whole number from 1 to 6000",
    ),
    "unknown approval": (
        ("[tags]", '[delivery]\norder = 1\napproval = "never"\n[tags]'),
        "delivery.approval",
        '"never" is unknown; write one of "permissions", "always"',
    ),
    "order before the first": (
        ("[tags]", "[delivery]\norder = 0\n[tags]"),
        "delivery.order",
        "write a whole number, 1 for the first to be deployed",
    ),
    "order in words": (
        ("[tags]", '[delivery]\norder = "first"\n[tags]'),
        "delivery.order",
        "write a whole number",
    ),
    "delivery without an order": (
        ("[tags]", '[delivery]\napproval = "always"\n[tags]'),
        "delivery.order",
        "is missing",
    ),
    "suffix in the file": (
        ('region = "us-east-1"', 'region = "us-east-1"\nsuffix = "anna"'),
        "suffix",
        "unknown key; remove it",
    ),
    "reserved tag": (
        ('project = "postern"', '"aws:project" = "postern"'),
        "tags.aws:project",
        "write another",
    ),
}


@pytest.mark.parametrize(("replacement", "key", "remedy"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_is_told_with_file_key_and_remedy(
    write_environment: WriteEnvironment, replacement: tuple[str, str], key: str, remedy: str
) -> None:
    path = write_environment(replacement)
    with pytest.raises(InvalidEnvironment) as raised:
        load(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: {key}: ")
    assert remedy in message
    assert len(message.splitlines()) == 1


def test_all_faults_are_told_at_once(write_environment: WriteEnvironment) -> None:
    path = write_environment(
        ('"111122223333"', '"1"'),
        ('policy = "none"', 'policy = "block"'),
        ('"postmaster@example.com"', '"postmaster@mail.example.com"'),
    )
    with pytest.raises(InvalidEnvironment) as raised:
        load(path)
    keys = [line.split(": ")[1] for line in str(raised.value).splitlines()]
    assert keys == ["account", "postmaster", "dmarc.policy"]


def test_a_syntax_error_is_told_with_its_line(write_environment: WriteEnvironment) -> None:
    path = write_environment(('region = "us-east-1"', "region = us-east-1"))
    with pytest.raises(InvalidEnvironment, match=r"prod\.toml: not TOML: .*line \d+"):
        load(path)


def test_a_missing_file_is_told_with_the_ones_there_are(
    write_environment: WriteEnvironment,
) -> None:
    there = write_environment()
    with pytest.raises(InvalidEnvironment, match=r'prd\.toml: there is no such file.*"prod"'):
        load(there.with_name("prd.toml"))


def test_a_file_name_that_cannot_name_a_stack_is_refused(
    write_environment: WriteEnvironment,
) -> None:
    with pytest.raises(InvalidEnvironment, match=r"file: .*such as \"prod\.toml\""):
        load(write_environment(name="Prod_1.toml"))


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("messages_a_day = [200, 400, 400]", (200, 400, 400)),
        ("first_day = 200\ngrowth = 1.5\nuntil = 1000", (200, 300, 450, 675)),
        ("first_day = 100\ngrowth = 2\nuntil = 800", (100, 200, 400, 800)),
        ("first_day = 7\ngrowth = 1.5\nuntil = 7", (7,)),
    ],
)
def test_a_warm_up_is_a_list_of_days(
    write_environment: WriteEnvironment, text: str, plan: tuple[int, ...]
) -> None:
    warm_up = load(write_environment(("[tags]", _warm_up(text)))).warm_up
    assert warm_up is not None
    assert warm_up.start == date(2026, 12, 1)
    assert warm_up.plan == plan
    assert load(write_environment()).warm_up is None


ALERT_ADDRESS = 'alert_address = "operations@example.com"\n'


def test_alarms_go_to_the_postmaster_unless_another_address_is_named(
    write_environment: WriteEnvironment,
) -> None:
    assert load(write_environment()).alert_address == "operations@example.com"
    without = load(write_environment((ALERT_ADDRESS, "")))
    assert without.alert_address == without.postmaster == "postmaster@example.com"


def test_a_fault_of_the_postmaster_is_not_told_as_one_of_the_alert_address_too(
    write_environment: WriteEnvironment,
) -> None:
    path = write_environment((ALERT_ADDRESS, ""), ('"postmaster@example.com"', '"postmaster"'))
    with pytest.raises(InvalidEnvironment) as raised:
        load(path)
    assert [line.split(": ")[1] for line in str(raised.value).splitlines()] == ["postmaster"]


def test_a_report_service_is_accepted_once_it_wants_the_reports(
    write_environment: WriteEnvironment,
) -> None:
    settings = load(
        write_environment(
            ('"dmarc-reports@example.com"', '"us@reports.example.net"'),
            ("external_report_authorised = false", "external_report_authorised = true"),
        )
    )
    assert settings.dmarc.report_address == "us@reports.example.net"


def test_the_organisation_is_found_below_a_public_suffix(
    write_environment: WriteEnvironment,
) -> None:
    """co.uk is nobody's: a neighbour below it is another organisation."""
    with pytest.raises(InvalidEnvironment, match="another organisation"):
        load(
            write_environment(
                ('name = "example.com"', 'name = "example.co.uk"'),
                ('sending_domain = "mail.example.com"', 'sending_domain = "mail.example.co.uk"'),
                ('"dmarc-reports@example.com"', '"dmarc@neighbour.co.uk"'),
            )
        )


@pytest.mark.parametrize(
    ("instance_type", "architecture"),
    [
        ("t3.small", "amd64"),
        ("t3a.small", "amd64"),
        ("c7i-flex.large", "amd64"),
        ("g5.xlarge", "amd64"),
        ("t4g.small", "arm64"),
        ("c7gn.large", "arm64"),
        ("im4gn.large", "arm64"),
        ("x2gd.medium", "arm64"),
        ("a1.medium", "arm64"),
    ],
)
def test_the_architecture_follows_the_instance_type(
    write_environment: WriteEnvironment, instance_type: str, architecture: str
) -> None:
    settings = load(write_environment(('"t3.small"', f'"{instance_type}"')))
    assert settings.host.architecture == architecture


def test_the_script_is_found_beside_the_file_and_read_as_it_is(
    write_environment: WriteEnvironment,
) -> None:
    path = write_environment(
        ("queue_volume_gib = 20", 'queue_volume_gib = 20\nextra_user_data = "application.sh"'),
    )
    script = "#!/bin/sh\necho grüß dich\n"
    path.with_name("application.sh").write_text(script, encoding="utf-8")
    assert load(path).host.read_extra_user_data() == script


def test_a_script_that_carries_what_it_could_fetch_is_refused(
    write_environment: WriteEnvironment,
) -> None:
    path = write_environment(
        ("queue_volume_gib = 20", 'queue_volume_gib = 20\nextra_user_data = "application.sh"'),
    )
    script = "#!/bin/sh\n"
    path.with_name("application.sh").write_text(script.ljust(1024 * 1024, "#"), encoding="utf-8")
    load(path)
    path.with_name("application.sh").write_text(script.ljust(1024 * 1024, "ü"), encoding="utf-8")

    with pytest.raises(InvalidEnvironment) as raised:
        load(path)

    message = str(raised.value)
    assert message.startswith(f'{path}: host.extra_user_data: "application.sh" has 2097142 bytes, ')
    assert "1048576 are the most; let it fetch what it needs" in message


def test_only_an_environment_with_a_delivery_is_delivered(
    write_environment: WriteEnvironment,
) -> None:
    assert load(write_environment()).delivery is None
    delivered = load(write_environment(("[tags]", "[delivery]\norder = 2\n[tags]"))).delivery
    assert delivered is not None
    assert (delivered.order, delivered.approval) == (2, "permissions")


def test_without_a_word_about_clients_there_are_none(write_environment: WriteEnvironment) -> None:
    assert load(write_environment()).clients is None


def test_clients_come_from_networks_or_security_groups(
    write_environment: WriteEnvironment,
) -> None:
    settings = load(
        write_environment(
            _clients(
                'cidrs = ["10.20.0.0/16", "100.64.0.0/10"]', 'security_groups = ["sg-01234567"]'
            )
        )
    )
    assert settings.clients is not None
    assert settings.clients.port_25 is False
    assert settings.submission_name == "submission.mail.example.com"


def test_a_name_that_no_certificate_can_have_is_refused(
    write_environment: WriteEnvironment,
) -> None:
    """The sending domain by itself is short enough."""
    domain = f"{'m' * 42}.example.com"
    sending_domain = ('sending_domain = "mail.example.com"', f'sending_domain = "{domain}"')
    load(write_environment(sending_domain))
    with pytest.raises(InvalidEnvironment, match=r"clients: .* write a shorter sending_domain"):
        load(write_environment(sending_domain, _clients('cidrs = ["10.20.0.0/16"]')))


def test_the_annotated_example_shows_every_key() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    tables: list[type[BaseModel]] = [Environment, *_tables()]
    for table in tables:
        for key in table.model_fields:
            if key not in ("file", "suffix"):
                assert key in text, f"example.toml does not explain {key}"


def _tables() -> list[type[BaseModel]]:
    annotations = (field.annotation for field in Environment.model_fields.values())
    types = [part for annotation in annotations for part in (annotation, *get_args(annotation))]
    return [table for table in types if isinstance(table, type) and issubclass(table, BaseModel)]


def test_reading_settings_does_not_load_the_cdk() -> None:
    """Operators' commands read settings too, and the CDK takes seconds to load."""
    command = "import sys, stacks.environment; sys.exit('aws_cdk' in sys.modules)"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", command], cwd=root, check=True)
