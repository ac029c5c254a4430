"""DMARC by RFC 9989 and 9990."""

import dns.rcode
import pytest

from ops.doctor import dmarc
from ops.verdicts import Verdict
from tests.ops.doctor.conftest import DOMAIN, Patient

NAME = f"_dmarc.{DOMAIN}"
REPORTS = "rua=mailto:dmarc-reports@example.com"
EXTERNAL = "reports.example.org"
AUTHORISATION = f"{DOMAIN}._report._dmarc.{EXTERNAL}"


def test_the_new_tags_of_rfc_9989_are_valid(patient: Patient) -> None:
    record = f"v=DMARC1; p=none; np=reject; t=n; psd=n; adkim=s; aspf=s; {REPORTS}"
    patient.world.publish(NAME, "TXT", f'"{record}"')
    finding = patient.look(dmarc.check_dmarc)["DMARC rules"]
    assert finding.verdict is Verdict.FINE, finding


@pytest.mark.parametrize(
    ("record", "evidence"),
    [
        (f"v=DMARC1; p=none; adkim=s; aspf=s; pct=50; {REPORTS}", "pct tag was removed"),
        (f"v=DMARC1; p=none; adkim=s; aspf=s; ri=86400; {REPORTS}", "ri tag was removed"),
        (f"v=DMARC1; p=none; adkim=s; aspf=s; rf=afrf; {REPORTS}", "rf tag was removed"),
        (f"v=DMARC1; p=none; adkim=s; aspf=s; colour=red; {REPORTS}", "Unknown DMARC tag"),
        (f"v=DMARC1; p=refuse; adkim=s; aspf=s; {REPORTS}", "Tag p must have"),
        (f"v=DMARC1; adkim=s; aspf=s; {REPORTS}", "missing p tag"),
        (f"v=DMARC1; p=reject; adkim=s; aspf=s; {REPORTS}", "p=reject, and"),
        (f"v=DMARC1; p=none; adkim=r; aspf=s; {REPORTS}", "adkim=r is not strict"),
        (f"v=DMARC1; p=none; adkim=s; {REPORTS}", "aspf=r is not strict"),
        (f"v=DMARC1; p=none; t=y; adkim=s; aspf=s; {REPORTS}", "t=y asks"),
        ("v=DMARC1; p=none; adkim=s; aspf=s", "reports do not go to"),
        ("v=DMARC1; p=none; adkim=s; aspf=s; rua=mailto:x@example.com", "reports do not go to"),
        ("v=DMARC2; p=none", "0 DMARC records"),
    ],
)
def test_a_record_against_the_rules_or_the_settings_is_wrong(
    patient: Patient, record: str, evidence: str
) -> None:
    patient.world.publish(NAME, "TXT", f'"{record}"')
    finding = patient.look(dmarc.check_dmarc)["DMARC rules"]
    assert finding.verdict is Verdict.WRONG
    assert evidence in finding.evidence


def test_two_records_are_none(patient: Patient) -> None:
    patient.world.publish(NAME, "TXT", '"v=DMARC1; p=none"', '"v=DMARC1; p=reject"')
    assert "2 DMARC records" in patient.look(dmarc.check_dmarc)["DMARC rules"].evidence


@pytest.mark.parametrize(
    ("published", "verdict"),
    [
        (['"v=DMARC1;"'], Verdict.FINE),
        (['"v=DMARC1"', '"something else"'], Verdict.FINE),
        (['"v=DMARC10"'], Verdict.WRONG),
        ([], Verdict.WRONG),
    ],
)
def test_another_organisation_must_say_that_it_wants_reports(
    patient: Patient, published: list[str], verdict: Verdict
) -> None:
    address = f"dmarc@{EXTERNAL}"
    record = f"v=DMARC1; p=none; adkim=s; aspf=s; {REPORTS},mailto:{address}"
    patient.world.publish(NAME, "TXT", f'"{record}"')
    patient.world.publish(AUTHORISATION, "TXT", *published)
    found = patient.look(dmarc.check_dmarc)
    assert found["DMARC rules"].verdict is Verdict.FINE
    assert found[f"DMARC reports to {address}"].verdict is verdict
    assert AUTHORISATION in found[f"DMARC reports to {address}"].evidence
    assert found["DMARC reports to dmarc-reports@example.com"].verdict is Verdict.FINE


def test_an_authorisation_that_cannot_be_asked_for_is_not_told(patient: Patient) -> None:
    record = f"v=DMARC1; p=none; adkim=s; aspf=s; {REPORTS},mailto:dmarc@{EXTERNAL}"
    patient.world.publish(NAME, "TXT", f'"{record}"')
    patient.world.fail(dns.rcode.SERVFAIL, AUTHORISATION)
    found = patient.look(dmarc.check_dmarc)
    assert found[f"DMARC reports to dmarc@{EXTERNAL}"].verdict is Verdict.UNKNOWN
