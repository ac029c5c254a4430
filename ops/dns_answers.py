"""What name servers say: each question goes to one server, so that every answer has an author."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver

from ops.deployment import CannotTell

PUBLIC_RESOLVERS = ("1.1.1.1", "8.8.8.8")
TRIES = 2
SECONDS_A_TRY = 2.5
# What a server sends in one datagram without fragments (https://www.dnsflagday.net/2020/).
_PAYLOAD = 1232

Exchange = Callable[[dns.message.Message, str], dns.message.Message]
"""Sends a question to the server at an address and returns its answer; raises CannotTell."""


def exchange(question: dns.message.Message, address: str) -> dns.message.Message:
    """Ask over UDP, again when nothing comes, and over TCP when the answer does not fit."""
    for _ in range(TRIES):
        try:
            answer, _over_tcp = dns.query.udp_with_fallback(
                question, address, timeout=SECONDS_A_TRY
            )
        except dns.exception.Timeout:
            continue
        except (dns.exception.DNSException, OSError) as error:
            raise CannotTell(f"{address} could not be asked: {error}") from error
        return answer
    raise CannotTell(f"{address} did not answer within {TRIES * SECONDS_A_TRY:g} s")


@dataclass(frozen=True, kw_only=True)
class Server:
    """A name server; `name` is how it is called in evidence."""

    name: str
    address: str

    def __str__(self) -> str:
        """Its name and its address, once when they are the same."""
        return self.name if self.name == self.address else f"{self.name} ({self.address})"


class Dns:
    """The name servers that are asked: public resolvers, the operator's own, a zone's."""

    def __init__(
        self,
        *,
        public: Sequence[str] = PUBLIC_RESOLVERS,
        own: Sequence[str] | None = None,
        exchange: Exchange = exchange,
    ) -> None:
        """`own` are the addresses of the operator's resolvers, by default this machine's."""
        self.public = tuple(Server(name=address, address=address) for address in public)
        self._own = own
        self._exchange = exchange

    def ask(
        self, server: Server, name: str, record_type: str, *, recursive: bool = True
    ) -> tuple[str, ...]:
        """The records of this name and type that `server` gives, as sorted texts; () for none.

        The strings of a TXT record are joined (RFC 7208 section 3.3), names have no final dot.

        Not `recursive`: as of a server that has to know by itself.

        Raises:
            CannotTell: no answer came, or one that is neither records nor "there is none".
        """
        answer = self._answer(server, name, record_type, recursive=recursive)
        try:
            records = answer.resolve_chaining().answer
        except dns.exception.DNSException as error:
            raise CannotTell(f"{server} gave no usable answer for {name}: {error}") from error
        return tuple(sorted(_text(record) for record in records or ()))

    def absence_seconds(self, server: Server, zone: str) -> int:
        """How long a resolver may remember that a name was missing, as a server of the zone says.

        It is the smaller of the SOA record's TTL and its last field (RFC 2308 section 5).

        Raises:
            CannotTell: the server does not answer, or not with authority.
        """
        for rrset in self._answer(server, zone, "SOA", recursive=False).answer:
            if rrset.rdtype == dns.rdatatype.SOA:
                return int(min(rrset.ttl, *(record.minimum for record in rrset)))
        raise CannotTell(f"{server} gives no SOA record of {zone}: it does not serve that zone.")

    def _answer(
        self, server: Server, name: str, record_type: str, *, recursive: bool
    ) -> dns.message.QueryMessage:
        question = dns.message.make_query(name, record_type, use_edns=0, payload=_PAYLOAD)
        if not recursive:
            question.flags &= ~dns.flags.RD
        answer = self._exchange(question, server.address)
        if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise CannotTell(
                f"{server} answered {dns.rcode.to_text(answer.rcode())} for {name} {record_type}"
            )
        if not recursive and not answer.flags & dns.flags.AA:
            raise CannotTell(f"{server} does not answer for {name} with authority")
        assert isinstance(answer, dns.message.QueryMessage)
        return answer

    def ask_public(self, name: str, record_type: str) -> tuple[str, ...]:
        """What the first public resolver says that answers; raises CannotTell when none does."""
        return self._ask_first(self.public, name, record_type)

    def ask_own(self, name: str, record_type: str) -> tuple[str, ...]:
        """What the operator's own resolver says; raises CannotTell."""
        addresses = _resolvers_here() if self._own is None else self._own
        servers = [Server(name=address, address=address) for address in addresses]
        return self._ask_first(servers, name, record_type)

    def servers_of(self, zone: str) -> list[Server]:
        """The servers that the world finds `zone` at, one for each IPv4 address.

        A resolver comes to them by the parent zone's delegation.

        Raises:
            CannotTell: no resolver answers, or the zone has no server with an address.
        """
        try:
            names = self.ask_public(zone, "NS")
        except CannotTell as failure:
            raise CannotTell(
                f"The name servers of {zone} were not found: {failure}. See that this network lets "
                "DNS questions out, and that the zone's registrar names Route 53's servers."
            ) from failure
        with ThreadPoolExecutor() as executor:
            addresses = executor.map(lambda name: self.ask_public(name, "A"), names)
            servers = [
                Server(name=name, address=address)
                for name, its in zip(names, addresses, strict=True)
                for address in its
            ]
        if not servers:
            raise CannotTell(
                f"{zone} has no name server that the world can find: the domain is not delegated, "
                "or its registration has ended. Ask the registrar."
            )
        return servers

    def _ask_first(self, servers: Sequence[Server], name: str, record_type: str) -> tuple[str, ...]:
        failures = []
        for server in servers:
            try:
                return self.ask(server, name, record_type)
            except CannotTell as failure:
                failures.append(str(failure))
        raise CannotTell("; ".join(failures) or "there is no resolver to ask")


def zone_file_text(value: str, record_type: str) -> str:
    """A value of Route 53's, which is zone-file text, in the form that `Dns.ask` gives.

    Raises:
        CannotTell: it is not a value of this type.
    """
    try:
        return _text(dns.rdata.from_text(dns.rdataclass.IN, record_type, value))
    except dns.exception.DNSException as error:
        raise CannotTell(f"Route 53 holds {value}, which is no {record_type}: {error}") from error


def _text(record: dns.rdata.Rdata) -> str:
    if record.rdtype == dns.rdatatype.TXT:
        joined: bytes = b"".join(record.strings)  # type: ignore[attr-defined]
        return joined.decode(errors="backslashreplace")
    text = record.to_text()
    if record.rdtype in (dns.rdatatype.NS, dns.rdatatype.PTR):
        return text.removesuffix(".").lower()
    return text


def _resolvers_here() -> list[str]:
    try:
        return [str(address) for address in dns.resolver.Resolver().nameservers]
    except dns.resolver.NoResolverConfiguration as error:
        raise CannotTell(f"This machine has no resolver: {error}") from error
