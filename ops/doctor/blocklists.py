"""Whether DNS blocklists (RFC 5782) name the addresses that mail leaves from."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

from ops.deployment import CannotTell
from ops.dns_answers import Dns
from ops.doctor.facts import Facts
from ops.verdicts import Finding, Verdict

# RFC 5782 section 5: every list names the first, to show that it works, and never the second.
LISTED_TEST_POINT = "127.0.0.2"
UNLISTED_TEST_POINT = "127.0.0.1"
# No listings but refusals: the resolver is public, asks too much, or the name is mistyped.
# https://www.spamhaus.org/faqs/dnsbl-usage/
REFUSAL_PREFIX = "127.255.255."


@dataclass(frozen=True, kw_only=True)
class Blocklist:
    """A list that many receivers use. `page`: where an address is looked up and taken off."""

    name: str
    zone: str
    page: str


BLOCKLISTS = (
    Blocklist(
        name="Spamhaus ZEN",
        zone="zen.spamhaus.org",
        page="https://check.spamhaus.org/results/?query={address}",
    ),
    Blocklist(
        name="Barracuda",
        zone="b.barracudacentral.org",
        page="https://www.barracudacentral.org/lookups/lookup-reputation",
    ),
    Blocklist(
        name="SpamCop",
        zone="bl.spamcop.net",
        page="https://www.spamcop.net/w3m?action=checkblock&ip={address}",
    ),
    Blocklist(
        name="PSBL",
        zone="psbl.surriel.com",
        page="https://psbl.org/listing?ip={address}",
    ),
    Blocklist(
        name="SpamRATS",
        zone="all.spamrats.com",
        page="https://www.spamrats.com/lookup.php?ip={address}",
    ),
)


def check_blocklists(facts: Facts) -> Iterator[Finding]:
    """Each address at each list, asked through the operator's own resolver.

    Not through a public one, which most lists refuse to answer.
    """
    pairs = list(product((address.address for address in facts.addresses()), BLOCKLISTS))
    with ThreadPoolExecutor(max_workers=16) as executor:
        yield from executor.map(lambda pair: _listed(facts.dns, *pair), pairs)


def _listed(dns: Dns, address: str, blocklist: Blocklist) -> Finding:
    check = f"{address} at {blocklist.name}"
    page = blocklist.page.format(address=address)
    try:
        codes = _ask(dns, blocklist, address)
        _require_answers(dns, blocklist)
    except CannotTell as failure:
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            evidence=str(failure),
            remedy=f"Look at {page}, or run this where the resolver is your network's own: lists "
            "refuse public resolvers and strangers.",
        )
    if not codes:
        return Finding(check=check, verdict=Verdict.FINE, evidence="not listed")
    return Finding(
        check=check,
        verdict=Verdict.WRONG,
        evidence=f"listed ({', '.join(codes)}){_reason(dns, blocklist, address)}",
        remedy=f"See why at {page}. First stop what caused it (who sends what to whom: the bounces "
        "in the dashboard), then ask there to be taken off; asked too early, it comes back.",
    )


def _ask(dns: Dns, blocklist: Blocklist, address: str) -> tuple[str, ...]:
    """The codes under which `address` is listed."""
    codes = dns.ask_own(_name(blocklist, address), "A")
    if refusals := [code for code in codes if code.startswith(REFUSAL_PREFIX)]:
        raise CannotTell(f"{blocklist.zone} refuses this resolver ({', '.join(refusals)})")
    if foreign := [code for code in codes if not code.startswith("127.")]:
        raise CannotTell(
            f"{blocklist.zone} answers {', '.join(foreign)}, which no blocklist does: it has "
            "ended, or the resolver rewrites answers"
        )
    return codes


def _require_answers(dns: Dns, blocklist: Blocklist) -> None:
    """Without this a list that says nothing to us would pass for one that lists nobody."""
    if not _ask(dns, blocklist, LISTED_TEST_POINT):
        raise CannotTell(
            f"{blocklist.zone} does not list even its test point {LISTED_TEST_POINT}: it does not "
            "answer this resolver"
        )
    if _ask(dns, blocklist, UNLISTED_TEST_POINT):
        raise CannotTell(f"{blocklist.zone} lists everything: it has ended")


def _reason(dns: Dns, blocklist: Blocklist, address: str) -> str:
    try:
        reasons = dns.ask_own(_name(blocklist, address), "TXT")
    except CannotTell:  # only the words are missing
        return ""
    return f": {' '.join(reasons)}" if reasons else ""


def _name(blocklist: Blocklist, address: str) -> str:
    return ".".join([*reversed(address.split(".")), blocklist.zone])
