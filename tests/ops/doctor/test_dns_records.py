"""Records: present and equal in the hosted zone, at each of its servers, and at resolvers."""

import dns.rcode
import pytest

from ops.deployment import CannotTell
from ops.doctor import dns_records
from ops.verdicts import Verdict
from tests.ops.doctor.conftest import DOMAIN, PUBLIC, SERVERS, Patient

SECOND = SERVERS["ns-2.example.net"]
SPF = (DOMAIN, "TXT")


def test_all_places_are_named(patient: Patient) -> None:
    finding = patient.look(dns_records.check_records)["SPF record"]
    assert finding.verdict is Verdict.FINE
    assert "at 2 of its servers and at 1.1.1.1, 8.8.8.8" in finding.evidence


@pytest.mark.parametrize(
    ("name", "kind", "check"),
    [
        (DOMAIN, "A", "A record"),
        (DOMAIN, "TXT", "SPF record"),
        (f"s2026b._domainkey.{DOMAIN}", "TXT", "DKIM record s2026b"),
        (f"_dmarc.{DOMAIN}", "TXT", "DMARC record"),
    ],
)
def test_each_record_that_the_world_does_not_see_is_missed(
    patient: Patient, name: str, kind: str, check: str
) -> None:
    patient.world.publish(name, kind)
    found = patient.look(dns_records.check_records)
    assert found[check].verdict is Verdict.WRONG
    assert f"server ns-2.example.net ({SECOND}): none" in found[check].evidence
    assert "get-hosted-zone" in found[check].remedy
    assert [f.check for f in found.values() if f.verdict is not Verdict.FINE] == [check]


def test_one_server_that_lags_behind_is_named(patient: Patient) -> None:
    patient.world.answers[SECOND][SPF] = ['"v=spf1 -all"']
    finding = patient.look(dns_records.check_records)["SPF record"]
    assert finding.verdict is Verdict.WRONG
    assert f'ns-2.example.net ({SECOND}): "v=spf1 -all"' in finding.evidence
    assert "ns-1" not in finding.evidence


def test_a_resolver_with_an_old_answer_is_told_from_a_wrong_delegation(patient: Patient) -> None:
    patient.world.answers[PUBLIC[1]][SPF] = ['"v=spf1 -all"']
    finding = patient.look(dns_records.check_records)["SPF record"]
    assert finding.verdict is Verdict.WRONG
    assert "resolver 8.8.8.8" in finding.evidence
    assert "an hour" in finding.remedy


def test_a_record_removed_from_the_hosted_zone_is_missed_though_others_remember_it(
    patient: Patient,
) -> None:
    del patient.record_sets[SPF]
    finding = patient.look(dns_records.check_records)["SPF record"]
    assert finding.verdict is Verdict.WRONG
    assert "hosted zone Z0123456789ABCDEFGHIJ: none" in finding.evidence
    assert "detect-stack-drift" in finding.remedy


@pytest.mark.parametrize("failure", [CannotTell("no answer"), dns.rcode.SERVFAIL])
def test_a_server_that_does_not_answer_is_never_fine(
    patient: Patient, failure: CannotTell | dns.rcode.Rcode
) -> None:
    patient.world.failures[SECOND] = failure
    for finding in patient.look(dns_records.check_records).values():
        assert finding.verdict is Verdict.UNKNOWN
        assert "ns-2.example.net" in finding.evidence


def test_silence_of_one_does_not_hide_that_another_is_wrong(patient: Patient) -> None:
    patient.world.failures[SECOND] = CannotTell("no answer")
    patient.world.answers[PUBLIC[0]].pop(SPF)
    finding = patient.look(dns_records.check_records)["SPF record"]
    assert finding.verdict is Verdict.WRONG
    assert "no answer" in finding.evidence
    assert "resolver 1.1.1.1: none" in finding.evidence


def test_a_zone_without_servers_cannot_be_judged_by_resolvers_alone(patient: Patient) -> None:
    patient.world.publish("example.com", "NS")
    finding = patient.look(dns_records.check_records)["A record"]
    assert finding.verdict is Verdict.UNKNOWN
    assert "registration has ended" in finding.evidence


def test_a_null_mx_is_wrong_and_no_mx_is_not(patient: Patient) -> None:
    patient.world.publish(DOMAIN, "MX", "0 .")
    assert patient.look(dns_records.check_null_mx)["Null MX"].verdict is Verdict.WRONG
    patient.world.publish(DOMAIN, "MX", "10 mx.example.com.")
    assert patient.look(dns_records.check_null_mx)["Null MX"].verdict is Verdict.FINE
    patient.world.fail(CannotTell("no answer"))
    with pytest.raises(CannotTell):
        patient.look(dns_records.check_null_mx)


def test_a_zone_that_is_delegated_elsewhere_is_wrong(patient: Patient) -> None:
    patient.aws.answers["route53", "get_hosted_zone"]["DelegationSet"]["NameServers"] = [
        "ns-1.example.net"
    ]
    finding = patient.look(dns_records.check_delegation)["Delegation"]
    assert finding.verdict is Verdict.WRONG
    assert "of these ns-2.example.net do not serve" in finding.evidence
    assert "name ns-1.example.net and no others" in finding.remedy


def test_amazons_servers_under_names_of_ones_own_are_the_hosted_zones(patient: Patient) -> None:
    patient.world.publish("example.com", "NS", "dns.example.com.")
    patient.world.publish("dns.example.com", "A", SECOND)
    assert patient.look(dns_records.check_delegation)["Delegation"].verdict is Verdict.FINE


def test_a_server_without_authority_tells_nothing(patient: Patient) -> None:
    patient.world.lame.add(SECOND)
    finding = patient.look(dns_records.check_records)["A record"]
    assert finding.verdict is Verdict.UNKNOWN
    assert "with authority" in finding.evidence
