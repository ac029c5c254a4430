"""What a zone's authoritative servers say, each asked by itself: no cache stands between."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver

from ops.deployment import CannotTell

TIMEOUT_SECONDS = 5.0
_TRIES = 2  # a lost packet is no answer of the server's


@dataclass(frozen=True, kw_only=True)
class Server:
    """One address of an authoritative server."""

    name: str
    address: str

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"


def servers(zone: str) -> list[Server]:
    """Every server that the zone's NS records name, at each of its IPv4 addresses.

    Raises:
        CannotTell: this machine's resolver does not find them.
    """
    resolver = dns.resolver.Resolver()
    resolver.lifetime = 2 * TIMEOUT_SECONDS
    try:
        names = sorted(record.target.to_text(True) for record in resolver.resolve(zone, "NS"))
        return [
            Server(name=name, address=address)
            for name in names
            for address in sorted(a.address for a in resolver.resolve(f"{name}.", "A"))
        ]
    except dns.exception.DNSException as error:
        raise CannotTell(
            f"The authoritative servers of {zone} were not found: {error}. See that this machine "
            "resolves names, and that the zone's registrar names Route 53's servers."
        ) from error


def txt_values(server: Server, name: str) -> frozenset[bytes]:
    """The TXT records of a name, each one's strings joined; none when there is no such record.

    Raises:
        CannotTell: the server does not answer, or not with authority.
    """
    owner = dns.name.from_text(name)
    return frozenset(
        b"".join(record.strings)
        for rrset in _ask(server, name, "TXT").answer
        if rrset.rdtype == dns.rdatatype.TXT and rrset.name == owner
        for record in rrset
    )


def joined(values: Iterable[str]) -> frozenset[bytes]:
    """The same of Route 53's values of a TXT record, which are zone-file text."""
    rdata = (dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.TXT, value) for value in values)
    return frozenset(b"".join(record.strings) for record in rdata)  # type: ignore[attr-defined]


def absence_seconds(server: Server, zone: str) -> int:
    """How long a resolver may remember that a name was missing.

    It is the smaller of the SOA record's TTL and its last field (RFC 2308 section 5).

    Raises:
        CannotTell: the server does not answer, or not with authority.
    """
    message = _ask(server, zone, "SOA")
    for rrset in message.answer:
        if rrset.rdtype == dns.rdatatype.SOA:
            return int(min(rrset.ttl, *(record.minimum for record in rrset)))
    raise CannotTell(f"{server} gives no SOA record of {zone}: it does not serve that zone.")


def _ask(server: Server, name: str, record_type: str) -> dns.message.Message:
    query = dns.message.make_query(name, record_type, use_edns=0, payload=1232)
    query.flags &= ~dns.flags.RD
    for left in reversed(range(_TRIES)):
        try:
            message, _tcp = dns.query.udp_with_fallback(
                query, server.address, timeout=TIMEOUT_SECONDS
            )
            break
        except (dns.exception.DNSException, OSError) as error:
            if not left:
                raise CannotTell(f"{server} does not answer: {error}") from error
    code = message.rcode()
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise CannotTell(f"{server} answers {dns.rcode.to_text(code)} for {name}")
    if not message.flags & dns.flags.AA:
        raise CannotTell(f"{server} does not answer for {name} with authority")
    return message
