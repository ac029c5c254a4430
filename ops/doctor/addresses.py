"""A record and reverse DNS of the addresses that mail leaves from: one name (RFC 1912)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import dns.reversename

from ops.command_lines import cdk_deploy, postern
from ops.doctor.facts import Address, Facts
from ops.doctor.untold import told
from ops.verdicts import Finding, Verdict


def check_addresses(facts: Facts) -> Iterator[Finding]:
    """The A record names exactly the Elastic IPs, and each one's reverse DNS names the domain."""
    domain = facts.settings.sending_domain
    addresses = facts.addresses()
    elastic_ips = sorted(address.address for address in addresses)
    named = sorted(facts.dns.ask_public(domain, "A"))
    same = named == elastic_ips
    yield Finding(
        check="A record and Elastic IPs",
        verdict=Verdict.FINE if same else Verdict.WRONG,
        evidence=f"{domain} is {', '.join(named) or 'no address'}"
        + ("" if same else f"; the Elastic IPs are {', '.join(elastic_ips)}"),
        remedy=""
        if same
        else "Mail leaves from the Elastic IPs: the A record must name them all and no other. See "
        "the finding on the A record; after a change of the zones deploy SendingIdentity again.",
    )
    for address in addresses:
        yield _in_use(facts, address)
        yield _at_ec2(facts, address)
        yield told(f"Reverse DNS of {address.address}", partial(_in_dns, facts, address))


def _in_use(facts: Facts, address: Address) -> Finding:
    check = f"Use of {address.address}"
    if address.associated:
        return Finding(check=check, verdict=Verdict.FINE, evidence="associated")
    return Finding(
        check=check,
        verdict=Verdict.WRONG,
        evidence=f"{address.allocation_id} is associated with nothing: no mail leaves from it",
        remedy=f"Deploy the network: {cdk_deploy(facts.settings)}. If its zone is no longer used: "
        f"{postern(facts.settings, 'addresses')}",
    )


def _set_again(facts: Facts, address: Address) -> str:
    return (
        f"aws ec2 modify-address-attribute --allocation-id {address.allocation_id} --domain-name "
        f"{facts.settings.sending_domain} sets it again; the A record must name the address "
        "already."
    )


def _at_ec2(facts: Facts, address: Address) -> Finding:
    check = f"Reverse DNS of {address.address} at EC2"
    change = f" (change: {address.ptr_change})" if address.ptr_change else ""
    if "PENDING" in address.ptr_change:
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            evidence=f"{address.ptr or 'none'}{change}",
            remedy="AWS is changing it, which takes minutes. Run this again then.",
        )
    if address.ptr == facts.settings.sending_domain:
        return Finding(check=check, verdict=Verdict.FINE, evidence=address.ptr)
    return Finding(
        check=check,
        verdict=Verdict.WRONG,
        evidence=f"{address.ptr or 'none'}{change}, not {facts.settings.sending_domain}",
        remedy=_set_again(facts, address),
    )


def _in_dns(facts: Facts, address: Address, check: str) -> Finding:
    name = dns.reversename.from_address(address.address).to_text(omit_final_dot=True)
    names = facts.dns.ask_public(name, "PTR")
    if names == (facts.settings.sending_domain,):
        return Finding(check=check, verdict=Verdict.FINE, evidence=names[0])
    return Finding(
        check=check,
        verdict=Verdict.WRONG,
        evidence=f"{' and '.join(names) or 'none'}, not {facts.settings.sending_domain}; large "
        "providers refuse mail from such an address",
        remedy="When EC2 has the name, DNS follows within minutes to an hour. When EC2 does not "
        f"have it: {_set_again(facts, address)}",
    )
