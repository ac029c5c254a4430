"""One name: A record, Elastic IPs and reverse DNS agree."""

from typing import Any

import dns.rcode
import pytest

from ops.doctor import addresses
from ops.verdicts import Verdict
from tests.ops.doctor.conftest import DOMAIN, Patient, reverse_name

FIRST = "203.0.113.1"


@pytest.mark.parametrize("named", [[FIRST], [FIRST, "203.0.113.2", "203.0.113.9"], []])
def test_the_a_record_names_the_elastic_ips_and_no_other(
    patient: Patient, named: list[str]
) -> None:
    patient.world.publish(DOMAIN, "A", *named)
    finding = patient.look(addresses.check_addresses)["A record and Elastic IPs"]
    assert finding.verdict is Verdict.WRONG
    assert "the Elastic IPs are 203.0.113.1, 203.0.113.2" in finding.evidence


@pytest.mark.parametrize(
    "names", [[], ["ec2-203-0-113-1.example."], [f"{DOMAIN}.", "other.example."]]
)
def test_reverse_dns_must_be_the_one_name(patient: Patient, names: list[str]) -> None:
    patient.world.publish(reverse_name(FIRST), "PTR", *names)
    found = patient.look(addresses.check_addresses)
    assert found[f"Reverse DNS of {FIRST}"].verdict is Verdict.WRONG
    assert "modify-address-attribute" in found[f"Reverse DNS of {FIRST}"].remedy
    assert found["Reverse DNS of 203.0.113.2"].verdict is Verdict.FINE


def test_reverse_dns_of_one_that_cannot_be_asked_leaves_the_other(patient: Patient) -> None:
    patient.world.fail(dns.rcode.SERVFAIL, reverse_name(FIRST))
    found = patient.look(addresses.check_addresses)
    assert found[f"Reverse DNS of {FIRST}"].verdict is Verdict.UNKNOWN
    assert "SERVFAIL" in found[f"Reverse DNS of {FIRST}"].evidence
    assert found["Reverse DNS of 203.0.113.2"].verdict is Verdict.FINE


@pytest.mark.parametrize(
    ("attribute", "verdict"),
    [
        ({"PtrRecord": "old.example.com."}, Verdict.WRONG),
        ({}, Verdict.WRONG),
        (
            {"PtrRecord": f"{DOMAIN}.", "PtrRecordUpdate": {"Status": "PENDING", "Value": "x."}},
            Verdict.UNKNOWN,
        ),
        ({"PtrRecordUpdate": {"Status": "FAILED", "Reason": "no A record"}}, Verdict.WRONG),
    ],
)
def test_what_ec2_says_of_reverse_dns(
    patient: Patient, attribute: dict[str, Any], verdict: Verdict
) -> None:
    answer = patient.aws.answers["ec2", "describe_addresses_attribute"]
    one = {"AllocationId": "eipalloc-us-east-1a", "PublicIp": FIRST, **attribute}
    answer["Addresses"] = [one, answer["Addresses"][1]]
    finding = patient.look(addresses.check_addresses)[f"Reverse DNS of {FIRST} at EC2"]
    assert finding.verdict is verdict
    update = attribute.get("PtrRecordUpdate", {})
    assert all(word in finding.evidence for word in update.values())


def test_an_address_that_nothing_uses_sends_nothing(patient: Patient) -> None:
    del patient.aws.answers["ec2", "describe_addresses"]["Addresses"][0]["AssociationId"]
    assert patient.look(addresses.check_addresses)[f"Use of {FIRST}"].verdict is Verdict.WRONG
