"""What the lab's name server says: the deployed records, as zone files, with faults on request.

A Route 53 `ResourceRecords` value already is zone-file RDATA, the quoted and split strings of a
TXT record included, so nothing is translated on the way and a badly quoted value fails here as it
would in Route 53.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from itertools import cycle
from types import MappingProxyType
from typing import Any

import dns.reversename

from lab.internet import addresses

REVERSE_ZONE = "113.0.203.in-addr.arpa."

FAULTS: Mapping[str, str] = MappingProxyType(
    {
        "spf-without-eip": "the SPF record names no address",
        "dkim-missing": "no DKIM key record",
        "dkim-broken": "the DKIM key record holds another key",
        "spf-twice": "a second SPF record beside the right one",
        "ptr-missing": "no reverse DNS for the Elastic IPs",
        "ptr-other-name": "reverse DNS gives the Elastic IPs the names that AWS gives by itself",
        "dmarc-missing": "no DMARC record",
        "dnsbl-listed": "every block list has the Elastic IPs",
        "dnsbl-refuses": "every block list says that it takes no questions from this resolver",
        "second-server-lags": "the hosted zone's second name server keeps what it serves now",
        "down": "the name server does not answer",
        "slow": "the name server gives each answer three seconds late",
        "servfail": "the name server answers every query with SERVFAIL",
    }
)
"""Each fault that can be put into the DNS, and what it means in words."""

SERVER_FAULTS = ("down", "servfail", "slow")
"""Those of the name server itself, which leave the zones alone. Of several the first one counts."""

SECOND_SERVER_LAGS = "second-server-lags"
"""Not in the zones either: who serves them leaves the second server's files as they are."""

BLOCK_LISTS = (
    "zen.spamhaus.org",
    "b.barracudacentral.org",
    "bl.spamcop.net",
    "psbl.surriel.com",
    "all.spamrats.com",
)
"""DNS block lists that the lab's Internet has; without a fault nobody is on them."""

LARGE_RECEIVERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "gmail.com": ("gmail-smtp-in.l.google.com", addresses.FIRST_RECEIVER),
        "outlook.com": ("outlook-com.olc.protection.outlook.com", addresses.SECOND_RECEIVER),
        "yahoo.com": ("mta5.am0.yahoodns.net", addresses.SINKHOLE),
    }
)
"""Large receivers' domains, each with its mail exchange and the address that answers for it."""

_NAME_SERVERS = (addresses.NAME_SERVER, addresses.SECOND_NAME_SERVER)

# Nobody may remember that a name was missing: the next publication may bring it (RFC 2308).
_START_OF_AUTHORITY = """\
$ORIGIN {zone}
@ 0 IN SOA {first} hostmaster {serial} 3600 600 86400 0
"""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One resource record set of a hosted zone: `values` are RDATA in zone-file form."""

    name: str
    type: str
    ttl: int
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CloudRecords:
    """What AWS says about DNS: the hosted zone's records, and a name for each address.

    `reverse_dns` maps an Elastic IP to the name its PTR record gives, with the trailing dot.
    `name_servers` are the hosted zone's, absolute names.
    """

    name_servers: tuple[str, ...] = ()
    hosted_zone: tuple[Record, ...] = ()
    reverse_dns: tuple[tuple[str, str], ...] = ()


def known_faults(faults: Iterable[str]) -> frozenset[str]:
    """These `faults`, each of which there is.

    Raises:
        ValueError: there is one that `FAULTS` does not have.
    """
    faults = frozenset(faults)
    if unknown := faults - FAULTS.keys():
        raise ValueError(
            f"Unknown DNS fault {', '.join(sorted(unknown))}. There are: {', '.join(FAULTS)}."
        )
    return faults


def read_record_sets(
    record_sets: Iterable[Mapping[str, Any]],
    *,
    load_balancers: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> tuple[Record, ...]:
    """The records of Route 53's `ListResourceRecordSets`.

    The SOA and NS records of the zone itself are left out: `zone_files` writes its own. An alias of
    one of the `load_balancers` (DNS name to addresses) is answered with its addresses, as by Route
    53.

    Raises:
        ValueError: another alias record, which exists inside AWS only.
    """
    record_sets = list(record_sets)
    apex = {record_set["Name"] for record_set in record_sets if record_set["Type"] == "SOA"}
    records = []
    for record_set in record_sets:
        if record_set["Type"] in ("SOA", "NS") and record_set["Name"] in apex:
            continue
        if "AliasTarget" in record_set:
            target = record_set["AliasTarget"]["DNSName"].removeprefix("dualstack.").rstrip(".")
            if found := load_balancers.get(target):
                name = _unescape(record_set["Name"])
                records.append(Record(name=name, type="A", ttl=60, values=tuple(found)))
                continue
            raise ValueError(
                f"{record_set['Name']} {record_set['Type']} is an alias record, which no zone file "
                "can hold. Use a record with values."
            )
        records.append(
            Record(
                name=_unescape(record_set["Name"]),
                type=record_set["Type"],
                ttl=int(record_set["TTL"]),
                values=tuple(value["Value"] for value in record_set["ResourceRecords"]),
            )
        )
    return tuple(records)


def zone_files(
    *,
    records: CloudRecords,
    hosted_zone_name: str,
    region: str,
    mirror_hosts: Iterable[str],
    faults: Iterable[str] = (),
    serial: int,
) -> dict[str, str]:
    """The text of every zone, by the zone's absolute name.

    `mirror_hosts` are the host names under which the lab's Debian mirror is found.

    Raises:
        ValueError: an unknown fault, or an Elastic IP outside the reverse zone.
    """
    faults = known_faults(faults)
    hosted_zone, reverse_dns = _with_faults(records, faults)
    amazonaws = f"{region}.amazonaws.com"
    hosted_zone_name = hosted_zone_name.rstrip(".") + "."
    bodies: dict[str, list[str]] = {
        # The root, so that a name that nobody has does not exist (NXDOMAIN), as on the Internet.
        ".": [],
        hosted_zone_name: [
            f"{record.name} {record.ttl} IN {record.type} {value}"
            for record in hosted_zone
            for value in record.values
        ],
        REVERSE_ZONE: [f"{_reverse_name(ip)} 60 IN PTR {name}" for ip, name in reverse_dns],
        "example.net.": [
            *_receiver_zone("example.net", addresses.FIRST_RECEIVER_NAME, addresses.FIRST_RECEIVER),
            # It takes DMARC reports about any domain (RFC 9990); example.org takes none.
            '*._report._dmarc.example.net. 60 IN TXT "v=DMARC1"',
        ],
        "example.org.": _receiver_zone(
            "example.org", addresses.SECOND_RECEIVER_NAME, addresses.SECOND_RECEIVER
        ),
        # Any number of recipient domains, at any depth.
        f"{addresses.SINKHOLE_DOMAIN}.": [
            *_receiver_zone(addresses.SINKHOLE_DOMAIN, addresses.SINKHOLE_NAME, addresses.SINKHOLE),
            f"*.{addresses.SINKHOLE_DOMAIN}. 60 IN MX 10 {addresses.SINKHOLE_NAME}.",
        ],
        "100.51.198.in-addr.arpa.": [
            f"{dns.reversename.from_address(ip)} 60 IN PTR {name}."
            for ip, name in (
                (addresses.FIRST_RECEIVER, addresses.FIRST_RECEIVER_NAME),
                (addresses.SECOND_RECEIVER, addresses.SECOND_RECEIVER_NAME),
                (addresses.SINKHOLE, addresses.SINKHOLE_NAME),
            )
        ],
        # One wildcard answers for ec2.REGION and BUCKET.s3.REGION alike. A second one for
        # *.s3.REGION would make s3.REGION an existing name, which then had no address (RFC 4592).
        f"{amazonaws}.": [f"*.{amazonaws}. 60 IN A {addresses.AWS_FRONT}"],
        "amazonaws.com.": [
            f"{name}.amazonaws.com. 60 IN A {addresses.AWS_FRONT}"
            for name in (*addresses.GLOBAL_APIS, "*.s3")
        ],
        # Each mirror is a zone of its own, so that nothing is said about its neighbours.
        **{f"{host}.": [f"{host}. 60 IN A {addresses.DEBIAN_MIRROR}"] for host in mirror_hosts},
        **_large_receivers(),
        **{f"{name}.": _block_list(f"{name}.", records, faults) for name in BLOCK_LISTS},
        **_name_servers(records),
    }
    servers = {
        zone: records.name_servers
        if zone == hosted_zone_name and records.name_servers
        else (_below("ns1", zone), _below("ns2", zone))
        for zone in bodies
    }
    for zone in bodies:
        if zone != ".":
            bodies[_parent(zone, bodies)] += _delegation(zone, servers[zone])
    return {
        zone: _START_OF_AUTHORITY.format(zone=zone, serial=serial, first=servers[zone][0])
        + "".join(f"{line}\n" for line in (*_delegation(zone, servers[zone]), *body))
        for zone, body in bodies.items()
    }


def _delegation(zone: str, servers: Iterable[str]) -> list[str]:
    """A zone's NS records, as it has them itself and its parent does, with what leads to them."""
    return [
        line
        for server, address in zip(servers, cycle(_NAME_SERVERS), strict=False)
        for line in (
            f"{zone} 60 IN NS {server}",
            *([f"{server} 60 IN A {address}"] if server.endswith(f".{zone.lstrip('.')}") else []),
        )
    ]


def _parent(zone: str, zones: Collection[str]) -> str:
    """The closest of `zones` above `zone`."""
    while zone:
        zone = zone.partition(".")[2]
        if zone in zones:
            return zone
    return "."


def _below(label: str, zone: str) -> str:
    return f"{label}.{zone.lstrip('.')}"


def _name_servers(records: CloudRecords) -> dict[str, list[str]]:
    """The zones in which the hosted zone's name servers have their names and addresses."""
    zones: dict[str, list[str]] = {}
    for server, address in zip(records.name_servers, cycle(_NAME_SERVERS), strict=False):
        zone = zones.setdefault(server.partition(".")[2], [])
        zone.append(f"{server} 60 IN A {address}")
    return zones


def _large_receivers() -> dict[str, list[str]]:
    zones: dict[str, list[str]] = {}
    for domain, (exchange, address) in LARGE_RECEIVERS.items():
        zones.setdefault(f"{domain}.", []).append(f"{domain}. 60 IN MX 5 {exchange}.")
        theirs = ".".join(exchange.split(".")[-2:])
        zones.setdefault(f"{theirs}.", []).append(f"{exchange}. 60 IN A {address}")
    return zones


def _block_list(zone: str, records: CloudRecords, faults: Collection[str]) -> list[str]:
    """A block list (RFC 5782), with the test entry that each has."""
    if "dnsbl-refuses" in faults:
        return [f"*.{zone} 60 IN A 127.255.255.254"]
    listed = ["127.0.0.2"]
    if "dnsbl-listed" in faults:
        listed += [address for address, _ in records.reverse_dns]
    return [
        line
        for address in listed
        for name in [f"{'.'.join(reversed(address.split('.')))}.{zone}"]
        for line in (
            f"{name} 60 IN A 127.0.0.2",
            f'{name} 60 IN TXT "https://{zone.rstrip(".")}/{address}"',
        )
    ]


def _receiver_zone(domain: str, exchange: str, address: str) -> list[str]:
    return [f"{domain}. 60 IN MX 10 {exchange}.", f"{exchange}. 60 IN A {address}"]


def _reverse_name(address: str) -> str:
    if IPv4Address(address) not in addresses.ELASTIC_IPS:
        raise ValueError(
            f"Elastic IP {address} is outside {addresses.ELASTIC_IPS}, the only network whose "
            "reverse DNS the lab serves."
        )
    return str(dns.reversename.from_address(address))


def _unescape(name: str) -> str:
    """Route 53 lists `*` as `\\052`, in octal, where a zone file's escapes are decimal."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), name)


def _with_faults(
    records: CloudRecords, faults: Collection[str]
) -> tuple[Sequence[Record], Sequence[tuple[str, str]]]:
    hosted_zone: Sequence[Record] = records.hosted_zone
    if "dkim-missing" in faults:
        hosted_zone = [record for record in hosted_zone if not _is_dkim_key(record)]
    if "dmarc-missing" in faults:
        hosted_zone = [record for record in hosted_zone if not record.name.startswith("_dmarc.")]
    if "spf-without-eip" in faults:
        hosted_zone = [_changed(record, _without_addresses) for record in hosted_zone]
    if "dkim-broken" in faults:
        hosted_zone = [
            _changed(record, _with_another_key) if _is_dkim_key(record) else record
            for record in hosted_zone
        ]
    if "spf-twice" in faults:
        hosted_zone = [_with_another_spf_record(record) for record in hosted_zone]
    reverse_dns: Sequence[tuple[str, str]] = records.reverse_dns
    if "ptr-other-name" in faults:
        reverse_dns = [(address, _name_by_aws(address)) for address, _ in reverse_dns]
    return hosted_zone, () if "ptr-missing" in faults else reverse_dns


def _with_another_spf_record(record: Record) -> Record:
    if not any(value.startswith('"v=spf1') for value in record.values):
        return record
    return replace(record, values=(*record.values, '"v=spf1 mx -all"'))


def _name_by_aws(address: str) -> str:
    return f"ec2-{address.replace('.', '-')}.compute-1.amazonaws.com."


def _is_dkim_key(record: Record) -> bool:
    return "._domainkey." in record.name


def _changed(record: Record, change: Callable[[str], str]) -> Record:
    return replace(record, values=tuple(change(value) for value in record.values))


def _without_addresses(rdata: str) -> str:
    return re.sub(r"\s*ip4:[0-9./]+", "", rdata) if rdata.startswith('"v=spf1') else rdata


def _with_another_key(rdata: str) -> str:
    """Change one base64 digit in the middle of the modulus: still a key, but not the signer's."""
    digit = rdata.index("p=") + len("p=") + 60
    return rdata[:digit] + ("B" if rdata[digit] == "A" else "A") + rdata[digit + 1 :]
