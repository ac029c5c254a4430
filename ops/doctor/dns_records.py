"""Each record in the hosted zone, at each of the zone's servers, and at public resolvers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from ops.deployment import CannotTell
from ops.dns_answers import Server
from ops.doctor.facts import Facts, Record
from ops.verdicts import Finding, Verdict

# An SPF record of six addresses has 131.
LONGEST_SHOWN = 200

_Values = tuple[str, ...]


def check_records(facts: Facts) -> Iterator[Finding]:
    """Every record is everywhere, and everywhere the same."""
    with ThreadPoolExecutor() as executor:
        yield from executor.map(lambda record: _everywhere(facts, record), facts.records)


def check_delegation(facts: Facts) -> Iterator[Finding]:
    """The world asks the servers of this hosted zone and no others."""
    zone = facts.settings.hosted_zone
    answer = facts.deployment.call("route53", "get_hosted_zone", Id=zone.id)
    own_names = sorted(
        name.rstrip(".") for name in answer.get("DelegationSet", {}).get("NameServers", [])
    )
    # By address, since a zone may give Amazon's servers names of its own.
    own = {address for name in own_names for address in facts.dns.ask_public(name, "A")}
    servers = facts.servers()
    foreign = sorted({server.name for server in servers if server.address not in own})
    names = ", ".join(sorted({server.name for server in servers}))
    yield Finding(
        check="Delegation",
        verdict=Verdict.WRONG if foreign else Verdict.FINE,
        evidence=f"the world asks {names} for {zone.name}"
        + (
            f"; of these {', '.join(foreign)} do not serve hosted zone {zone.id}" if foreign else ""
        ),
        remedy=f"At the registrar, or in the parent zone's NS record, name {', '.join(own_names)} "
        "and no others, or write the id of the hosted zone that the world asks."
        if foreign
        else "",
    )


def check_null_mx(facts: Facts) -> Iterator[Finding]:
    """No null MX: it tells receivers that mail from this domain can't be answered (RFC 7505)."""
    domain = facts.settings.sending_domain
    exchanges = [record.split()[-1] for record in facts.dns.ask_public(domain, "MX")]
    if "." in exchanges:
        yield Finding(
            check="Null MX",
            verdict=Verdict.WRONG,
            evidence=f"{domain} has a null MX record, for which some receivers refuse its mail",
            remedy=f"Remove the MX record of {domain}: it needs none.",
        )
    else:
        yield Finding(check="Null MX", verdict=Verdict.FINE, evidence="there is none")


def _everywhere(facts: Facts, record: Record) -> Finding:
    zone = facts.settings.hosted_zone
    in_zone = f"hosted zone {zone.id}"
    at_servers: dict[str, _Values | CannotTell] = {}
    try:
        servers = facts.servers()
    except CannotTell as failure:
        servers = []
        at_servers[f"servers of {zone.name}"] = failure
    held = _told(lambda: facts.hosted_zone()[record])
    with ThreadPoolExecutor() as executor:

        def ask(server: Server, *, recursive: bool) -> _Values | CannotTell:
            return _told(
                lambda: facts.dns.ask(server, record.name, record.record_type, recursive=recursive)
            )

        asked = [(server, executor.submit(ask, server, recursive=False)) for server in servers]
        resolved = [
            (server, executor.submit(ask, server, recursive=True)) for server in facts.dns.public
        ]
        at_servers |= {f"server {server}": answer.result() for server, answer in asked}
        at_resolvers = {f"resolver {server}": answer.result() for server, answer in resolved}

    seen = {in_zone: held, **at_servers, **at_resolvers}
    told = {place: values for place, values in seen.items() if not isinstance(values, CannotTell)}
    expected = next((values for values in told.values() if values), ())
    wrong = [place for place, values in told.items() if values != expected or not values]
    untold = [f"{place}: {failure}" for place, failure in seen.items() if place not in told]
    if not wrong and not untold:
        return Finding(
            check=record.title,
            verdict=Verdict.FINE,
            evidence=f"{record.name} {record.record_type} {_quoted(expected)}, the same in the "
            f"hosted zone, at {len(servers)} of its servers and at "
            f"{', '.join(str(server) for server in facts.dns.public)}",
        )
    evidence = [f"{record.name} {record.record_type}"]
    if expected and wrong:
        others = next(place for place, values in told.items() if values == expected)
        evidence.append(f"{others}: {_quoted(expected)}")
    evidence += [f"{place}: {_quoted(told[place])}" for place in wrong] + untold
    if not wrong:
        remedy = (
            "Who did not answer may be unreachable from here: run this again, and from another "
            "network (some let no DNS questions out but to their own resolver)."
        )
    elif in_zone in wrong:
        remedy = (
            "Somebody removed it from the hosted zone, which no deployment notices. aws "
            f"cloudformation detect-stack-drift --stack-name "
            f"{facts.deployment.stack_name('SendingIdentity')}, then "
            "describe-stack-resource-drifts, shows the value that was deployed: make the record "
            "again in Route 53 with it."
        )
    elif any(place in at_servers for place in wrong):
        remedy = (
            f"Is {zone.name} delegated to the servers of this hosted zone? aws route53 "
            f"get-hosted-zone --id {zone.id} names them; the registrar, or the parent zone's NS "
            f"record, must name the same. The world asks {_servers(servers)}."
        )
    else:
        remedy = (
            "A resolver repeats what it heard for as long as the record says, an hour here (the A "
            "record: a minute). If it is still so then, the world asks other servers than this "
            f"hosted zone's: compare aws route53 get-hosted-zone --id {zone.id} with the registrar."
        )
    return Finding(
        check=record.title,
        verdict=Verdict.WRONG if wrong else Verdict.UNKNOWN,
        evidence="; ".join(evidence),
        remedy=remedy,
    )


def _told(ask: Callable[[], _Values]) -> _Values | CannotTell:
    try:
        return ask()
    except CannotTell as failure:
        return failure


def _quoted(values: _Values) -> str:
    shown = (f'"{_shortened(value)}"' if " " in value else value for value in values)
    return " and ".join(shown) or "none"


def _shortened(value: str) -> str:
    """Without the middle of a key, and as different from another as the key is, for a person."""
    if len(value) <= LONGEST_SHOWN:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()[:8]
    return f"{value[:40]}...{value[-8:]} (SHA-256 {digest}...)"


def _servers(servers: list[Server]) -> str:
    return ", ".join(server.name for server in servers) or "none"
