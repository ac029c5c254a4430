"""The whole: a healthy environment is fine, and no check that fails hides the others."""

import json
import time
from collections.abc import Iterator

import pytest

from ops import doctor
from ops.deployment import CannotTell
from ops.doctor.facts import Facts
from ops.verdicts import Finding, Verdict, overall
from tests.ops.doctor.conftest import Patient
from tests.stacks.conftest import ROOT

# Run Command, which `mail_hosts` is given here without AWS; the account, before anything is asked.
ELSEWHERE = {"ssm:SendCommand", "ssm:GetCommandInvocation", "sts:GetCallerIdentity"}


def test_a_healthy_environment_is_fine_in_every_respect(patient: Patient) -> None:
    findings = doctor.examine(patient.deployment, patient.dns)
    assert [finding for finding in findings if finding.verdict is not Verdict.FINE] == []
    assert overall(findings) is Verdict.FINE
    checks = [finding.check for finding in findings]
    assert len(checks) == len(set(checks))  # --watch tells them apart by their names


def test_an_operator_is_allowed_what_is_asked_and_no_more(patient: Patient) -> None:
    doctor.examine(patient.deployment, patient.dns)
    asked = {f"{service}:{operation}" for service, operation in patient.aws.asked} | ELSEWHERE
    policy = json.loads((ROOT / "docs" / "operator-policy.json").read_text())
    allowed = {
        action
        for statement in policy["Statement"]
        if statement["Sid"].startswith("Doctor")
        for action in statement["Action"]
    }
    assert allowed == asked


@pytest.mark.parametrize(
    ("service", "method", "untold"),
    [
        ("ec2", "describe_addresses", {"Settings and SendingIdentity", "Addresses", "SPF"}),
        ("route53", "list_resource_record_sets", {"A record", "DMARC record"}),
        ("cloudformation", "describe_stacks", {"Stacks", "Addresses", "Hosts", "Alarms"}),
        ("cloudwatch", "describe_alarms", {"Alarms"}),
        ("ssm", "describe_instance_information", {"Hosts"}),
    ],
)
def test_what_aws_refuses_is_not_told_and_the_rest_is(
    patient: Patient, service: str, method: str, untold: set[str]
) -> None:
    patient.aws.refuse(service, method)
    found = {f.check: f for f in doctor.examine(patient.deployment, patient.dns)}
    for check in untold:
        assert found[check].verdict is Verdict.UNKNOWN
        assert "not authorized" in found[check].evidence
    assert found["DMARC rules"].verdict is Verdict.FINE
    assert not [finding for finding in found.values() if finding.verdict is Verdict.WRONG]


def test_without_any_dns_nothing_of_it_is_fine(patient: Patient) -> None:
    patient.world.fail(CannotTell("no answer"))
    found = {f.check: f for f in doctor.examine(patient.deployment, patient.dns)}
    for check in ("A record", "SPF", "DKIM key s2026a", "DMARC", "Null MX", "Addresses"):
        assert found[check].verdict is Verdict.UNKNOWN
    assert found["203.0.113.1 at SpamCop"].verdict is Verdict.UNKNOWN
    assert found["Stack Network"].verdict is Verdict.FINE


def test_a_check_that_hangs_is_given_up(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(_facts: Facts) -> Iterator[Finding]:
        time.sleep(60)
        yield Finding(check="never", verdict=Verdict.FINE, evidence="")

    monkeypatch.setitem(doctor.CHECKS, "DMARC", hang)
    started = time.monotonic()
    found = {f.check: f for f in doctor.examine(patient.deployment, patient.dns, seconds=1)}
    assert time.monotonic() - started < 10
    assert (found["DMARC"].verdict, found["DMARC"].evidence) == (
        Verdict.UNKNOWN,
        "no answer within 1 s",
    )
    assert found["A record"].verdict is Verdict.FINE


def test_what_is_not_there_to_be_looked_at_is_not_called_slow(patient: Patient) -> None:
    patient.stacks["Network"]["resources"] = []
    found = {f.check: f for f in doctor.examine(patient.deployment, patient.dns)}
    ports = found["Ports of the NAT gateways"]
    assert (ports.verdict, ports.evidence) == (
        Verdict.UNKNOWN,
        "nothing of the kind is deployed",
    )


def test_an_error_in_a_check_keeps_what_it_found_before_and_a_mistake_of_ours_is_raised(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(_facts: Facts) -> Iterator[Finding]:
        yield Finding(check="first", verdict=Verdict.WRONG, evidence="x", remedy="y")
        raise CannotTell("the second half")

    monkeypatch.setattr(doctor, "CHECKS", {"Half": half})
    findings = doctor.examine(patient.deployment, patient.dns)
    assert [(f.check, f.verdict) for f in findings] == [
        ("first", Verdict.WRONG),
        ("Half", Verdict.UNKNOWN),
    ]

    def mistake(_facts: Facts) -> Iterator[Finding]:
        raise KeyError("a mistake")

    monkeypatch.setattr(doctor, "CHECKS", {"Mistake": mistake})
    with pytest.raises(KeyError):
        doctor.examine(patient.deployment, patient.dns)


def test_a_check_that_is_left_out_is_neither_made_nor_missed(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistake(_facts: Facts) -> list[Finding]:
        raise AssertionError("this check was to be left out")

    monkeypatch.setitem(doctor.CHECKS, "Blocklists", mistake)
    found = doctor.examine(patient.deployment, patient.dns, without=["Blocklists"])
    assert found
    assert all("Blocklists" not in finding.check for finding in found)
