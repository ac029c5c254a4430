"""Blocklists: a listing, and each way in which a list says nothing."""

import dns.rcode
import pytest

from ops.deployment import CannotTell
from ops.doctor import blocklists
from ops.verdicts import Verdict
from tests.ops.doctor.conftest import OWN, Patient

ZONE = "zen.spamhaus.org"
CHECK = "203.0.113.1 at Spamhaus ZEN"
NAME = f"1.113.0.203.{ZONE}"


def test_a_listing_is_wrong_with_its_reason_and_where_to_go(patient: Patient) -> None:
    patient.world.publish(NAME, "A", "127.0.0.2", "127.0.0.4")
    patient.world.publish(NAME, "TXT", '"see https://example.org/1"')
    found = patient.look(blocklists.check_blocklists)
    assert found[CHECK].verdict is Verdict.WRONG
    assert "127.0.0.2, 127.0.0.4): see https://example.org/1" in found[CHECK].evidence
    assert "https://check.spamhaus.org/results/?query=203.0.113.1" in found[CHECK].remedy
    others = [finding for check, finding in found.items() if check != CHECK]
    assert {finding.verdict for finding in others} == {Verdict.FINE}


@pytest.mark.parametrize(
    ("name", "records", "evidence"),
    [
        (NAME, ["127.255.255.254"], "refuses this resolver (127.255.255.254)"),
        (NAME, ["192.0.2.1"], "no blocklist does"),
        (f"2.0.0.127.{ZONE}", [], "test point 127.0.0.2"),
        (f"2.0.0.127.{ZONE}", ["127.255.255.254"], "refuses this resolver"),
        (f"1.0.0.127.{ZONE}", ["127.0.0.2"], "lists everything"),
    ],
)
def test_a_list_that_does_not_answer_us_tells_nothing(
    patient: Patient, name: str, records: list[str], evidence: str
) -> None:
    patient.world.publish(name, "A", *records)
    finding = patient.look(blocklists.check_blocklists)[CHECK]
    assert finding.verdict is Verdict.UNKNOWN
    assert evidence in finding.evidence


@pytest.mark.parametrize("failure", [dns.rcode.REFUSED, CannotTell("did not answer within 5 s")])
def test_silence_is_no_good_news(patient: Patient, failure: dns.rcode.Rcode | CannotTell) -> None:
    patient.world.fail(failure, NAME)
    assert patient.look(blocklists.check_blocklists)[CHECK].verdict is Verdict.UNKNOWN


def test_a_list_that_ended_and_lists_everything_is_not_believed(patient: Patient) -> None:
    for point in (NAME, f"1.0.0.127.{ZONE}"):
        patient.world.publish(point, "A", "127.0.0.2")
    finding = patient.look(blocklists.check_blocklists)[CHECK]
    assert finding.verdict is Verdict.UNKNOWN


def test_lists_are_asked_through_the_own_resolver_only(patient: Patient) -> None:
    for server in patient.world.answers:
        if server != OWN:
            patient.world.failures[server, NAME] = CannotTell("was asked")
    assert patient.look(blocklists.check_blocklists)[CHECK].verdict is Verdict.FINE
