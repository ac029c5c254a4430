"""SPF by RFC 7208, as receivers evaluate it."""

import pytest

from ops.doctor import spf
from ops.verdicts import Verdict
from tests.ops.doctor.conftest import DOMAIN, Patient

BOTH = "ip4:203.0.113.1 ip4:203.0.113.2"


@pytest.mark.parametrize(
    ("records", "evidence"),
    [
        ([], "0 SPF records"),
        ([f"v=spf1 {BOTH} -all", "v=spf1 -all"], "2 SPF records"),
        ([f"v=spf1 {BOTH} ~all"], "does not end in -all: others softfail"),
        ([f"v=spf1 {BOTH}"], "does not end in -all: others neutral"),
        ([f"v=spf1 {BOTH} ip4:300.0.0.1 -all"], "300.0.0.1"),
        (
            ["v=spf1 " + " ".join(f"exists:%{{i}}.{n}.a.io" for n in range(11)) + " -all"],
            "11 look-ups, and receivers make at most 10",
        ),
    ],
)
def test_a_record_against_the_rules_is_wrong(
    patient: Patient, records: list[str], evidence: str
) -> None:
    patient.world.publish(DOMAIN, "TXT", *(f'"{record}"' for record in records))
    finding = patient.look(spf.check_spf)["SPF rules"]
    assert finding.verdict is Verdict.WRONG
    assert evidence in finding.evidence


def test_other_texts_beside_it_are_no_second_record(patient: Patient) -> None:
    patient.world.publish(DOMAIN, "TXT", f'"v=spf1 {BOTH} -all"', '"v=spf10 x"', '"site=1"')
    assert patient.look(spf.check_spf)["SPF rules"].verdict is Verdict.FINE


@pytest.mark.parametrize(
    ("record", "first", "second"),
    [
        ("v=spf1 ip4:203.0.113.0/24 -all", Verdict.FINE, Verdict.FINE),
        ("v=spf1 ip4:203.0.113.1 -all", Verdict.FINE, Verdict.WRONG),
        ("v=spf1 -ip4:203.0.113.1 ip4:203.0.113.0/24 -all", Verdict.WRONG, Verdict.FINE),
        ("v=spf1 -all", Verdict.WRONG, Verdict.WRONG),
        ("v=spf1 ip4:203.0.113.1 exists:%{i}.example.com -all", Verdict.FINE, Verdict.UNKNOWN),
    ],
)
def test_each_address_gets_the_result_that_a_receiver_finds(
    patient: Patient, record: str, first: Verdict, second: Verdict
) -> None:
    patient.world.publish(DOMAIN, "TXT", f'"{record}"')
    found = patient.look(spf.check_spf)
    assert found["SPF of 203.0.113.1"].verdict is first
    assert found["SPF of 203.0.113.2"].verdict is second
