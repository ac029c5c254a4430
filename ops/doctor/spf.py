"""The SPF record by RFC 7208, as the world sees it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import checkdmarc.spf

from ops.doctor.facts import Facts
from ops.verdicts import Finding, Verdict

# RFC 7208 section 4.6.4.
MOST_LOOKUPS = 10


def check_spf(facts: Facts) -> Iterator[Finding]:
    """Exactly one record, few look-ups, an end that fails others, and a pass for each address."""
    domain = facts.settings.sending_domain
    texts = facts.dns.ask_public(domain, "TXT")
    # RFC 7208 section 4.5: what begins so is an SPF record, and of two neither counts.
    records = [text for text in texts if text.lower().split(" ")[0] == "v=spf1"]
    deploy = "Put it back as it was deployed: the finding on the SPF record has the values."
    if len(records) != 1:
        evidence = " and ".join(f'"{record}"' for record in records) or "none"
        yield Finding(
            check="SPF rules",
            verdict=Verdict.WRONG,
            evidence=f"{domain} has {len(records)} SPF records: {evidence}; receivers use none",
            remedy=f"Leave exactly one. {deploy}",
        )
        return
    (record,) = records
    try:
        parsed = checkdmarc.spf.parse_spf_record(
            record,
            domain,
            ignore_too_many_lookups=True,
            nameservers=[server.address for server in facts.dns.public],
        )
    except checkdmarc.spf.SPFError as error:
        yield Finding(
            check="SPF rules",
            verdict=Verdict.WRONG,
            evidence=f'"{record}": {error}',
            remedy=deploy,
        )
        return
    lookups = parsed["dns_lookups"]
    faults = list(parsed["warnings"])
    if lookups > MOST_LOOKUPS:
        faults.append(f"{lookups} look-ups, and receivers make at most {MOST_LOOKUPS}")
    elif "error" in parsed:
        faults.append(str(parsed["error"]))
    if parsed["parsed"]["all"] != "fail":
        faults.append(f"it does not end in -all: others {parsed['parsed']['all']}")
    yield Finding(
        check="SPF rules",
        verdict=Verdict.WRONG if faults else Verdict.FINE,
        evidence=f'"{record}": '
        + ("; ".join(faults) or f"one record, {lookups} look-ups, ends in -all"),
        remedy=deploy if faults else "",
    )
    for address in facts.addresses():
        yield _result(address.address, record, parsed["parsed"], deploy)


def _result(
    address: str, record: str, parsed: checkdmarc.spf.ParsedSPFRecord, deploy: str
) -> Finding:
    """What a receiver finds for mail from `address`: the first mechanism that matches decides."""
    check = f"SPF of {address}"
    for mechanism in parsed["mechanisms"]:
        if mechanism["mechanism"] != "ip4":
            return Finding(
                check=check,
                verdict=Verdict.UNKNOWN,
                evidence=f'"{record}" has "{mechanism["mechanism"]}", which a deployment does not '
                "write and which is not evaluated here",
                remedy=deploy,
            )
        if ipaddress.ip_address(address) in ipaddress.ip_network(mechanism["value"], strict=False):
            result = mechanism["action"]
            break
    else:
        result = parsed["all"]
    if result == "pass":
        return Finding(check=check, verdict=Verdict.FINE, evidence="pass")
    return Finding(
        check=check,
        verdict=Verdict.WRONG,
        evidence=f'{result}: "{record}" does not name {address}, which mail leaves from',
        remedy=deploy,
    )
