"""The DMARC record by RFC 9989, and the leave to report to another organisation (RFC 9990)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import checkdmarc.dmarc
import checkdmarc.utils

from ops.doctor.facts import Facts
from ops.doctor.untold import told
from ops.verdicts import Finding, Verdict

_REPORT_TAGS = ("rua", "ruf")


def check_dmarc(facts: Facts) -> Iterator[Finding]:
    """One record, valid, with the policy that is set and strict alignment; reports are wanted."""
    settings = facts.settings
    name = f"_dmarc.{settings.sending_domain}"
    records = [text for text in facts.dns.ask_public(name, "TXT") if _is_dmarc(text)]
    put_back = "Put it back as it was deployed: the finding on the DMARC record has the values."
    if len(records) != 1:
        evidence = " and ".join(f'"{record}"' for record in records) or "none"
        yield Finding(
            check="DMARC rules",
            verdict=Verdict.WRONG,
            evidence=f"{name} has {len(records)} DMARC records: {evidence}",
            remedy=f"Exactly one must be there. {put_back}",
        )
        return
    (record,) = records
    faults = _faults(record, facts)
    yield Finding(
        check="DMARC rules",
        verdict=Verdict.WRONG if faults else Verdict.FINE,
        evidence=f'"{record}": ' + ("; ".join(faults) or "valid, strict alignment"),
        remedy=f"If {settings.file} was changed, deploy SendingIdentity; otherwise: {put_back}"
        if faults
        else "",
    )
    for address in _report_values(record):
        yield told(f"DMARC reports to {address}", partial(_report_address, facts, address))


def _is_dmarc(text: str) -> bool:
    """Whether a TXT record's text is a DMARC record (RFC 9989 section 4.7)."""
    return re.match(r"v[ \t]*=[ \t]*DMARC1[ \t]*(;|$)", text) is not None


def _faults(record: str, facts: Facts) -> list[str]:
    domain, dmarc = facts.settings.sending_domain, facts.settings.dmarc
    # Without its report addresses, which `checkdmarc` would look up, taking silence for a no.
    rules = ";".join(tag for tag in record.split(";") if _tag_name(tag) not in _REPORT_TAGS)
    try:
        parsed = checkdmarc.dmarc.parse_dmarc_record(rules, domain)
        # What it also says of a record that has the policy and nothing else is its advice.
        advice = checkdmarc.dmarc.parse_dmarc_record(f"v=DMARC1; p={dmarc.policy}", domain)
    except checkdmarc.dmarc.DMARCError as error:
        return [str(error)]
    faults = [warning for warning in parsed["warnings"] if warning not in advice["warnings"]]
    tags = {tag: value["value"] for tag, value in parsed["tags"].items()}
    if tags["p"] != dmarc.policy:
        faults.append(f"p={tags['p']}, and {facts.settings.file} says {dmarc.policy}")
    faults += [
        f"{tag}={tags[tag]} is not strict alignment (s)"
        for tag in ("adkim", "aspf")
        if tags[tag] != "s"
    ]
    if tags["t"] == "y":
        faults.append("t=y asks receivers not to apply the policy")
    if dmarc.report_address not in _report_values(record):
        faults.append(f"reports do not go to {dmarc.report_address}")
    return faults


def _report_address(facts: Facts, address: str, check: str) -> Finding:
    domain = facts.settings.sending_domain
    receiver = address.rpartition("@")[2]
    # RFC 9990 section 4 finds the organisational domain by a tree walk; as the settings do, this
    # takes the public suffix list for it.
    if checkdmarc.utils.get_base_domain(receiver) == checkdmarc.utils.get_base_domain(domain):
        return Finding(check=check, verdict=Verdict.FINE, evidence="of the same organisation")
    name = f"{domain}._report._dmarc.{receiver}"
    texts = facts.dns.ask_public(name, "TXT")
    evidence = f"{name} TXT {' and '.join(texts) or 'none'}"
    if any(_is_dmarc(text) for text in texts):
        return Finding(check=check, verdict=Verdict.FINE, evidence=evidence)
    return Finding(
        check=check,
        verdict=Verdict.WRONG,
        evidence=f"{evidence}: so receivers send no reports there",
        remedy=f'Let the owner of {receiver} publish the TXT record {name} with "v=DMARC1;", or '
        f"set another dmarc.report_address in {facts.settings.file} and deploy.",
    )


def _tag_name(tag: str) -> str:
    return tag.partition("=")[0].strip().lower()


def _report_values(record: str) -> list[str]:
    """The mail addresses that aggregate reports go to."""
    return [
        uri.strip().partition("!")[0].removeprefix("mailto:")
        for tag in record.split(";")
        if _tag_name(tag) == "rua"
        for uri in tag.partition("=")[2].split(",")
    ]
