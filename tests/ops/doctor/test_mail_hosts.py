"""Mail hosts: each number of the report, and who the host is."""

import subprocess
from datetime import date
from typing import Any

import pytest

from ops.deployment import CannotTell
from ops.doctor import mail_hosts
from ops.verdicts import Verdict
from stacks.environment import WarmUp
from tests.ops.doctor.conftest import KEYS, Patient

HOST = "us-east-1a i-us-east-1a"
KEY_NAME = "s2026a._domainkey.mail.example.com"


@pytest.mark.parametrize(
    ("change", "check", "evidence"),
    [
        ({"port25_open": 0, "port25_checked": "mx: timed out"}, "port 25", "closed: mx: timed out"),
        ({"port25_tls": 0}, "TLS at receivers", "not offered"),
        ({"oldest_age_seconds": 4 * 3600 + 1}, "queue", "3 messages, the oldest 4.0 h old"),
        ({"set_aside": 1}, "messages set aside", "1"),
        ({"orphans": 2}, "orphans in the queue", "2 message bodies"),
        ({"undeliverable_bytes": 900}, "undeliverable bounces", "900 bytes"),
        ({"dead_units": 1, "dead_unit_names": ["opendkim.service"]}, "units", "opendkim.service"),
        ({"queue_disk_percent": 81}, "queue volume", "81 % full"),
        ({"queue_inodes_percent": 81}, "queue volume's inodes", "81 % used"),
        ({"root_disk_percent": 81}, "root volume", "81 % full"),
        ({"agents": {"amazon-ssm-agent": "3"}}, "agents", "amazon-cloudwatch-agent not installed"),
    ],
)
def test_each_number_has_its_limit(
    patient: Patient, change: dict[str, Any], check: str, evidence: str
) -> None:
    patient.hosts.report |= change
    found = patient.look(mail_hosts.check_mail_hosts)
    assert found[f"{HOST}: {check}"].verdict is Verdict.WRONG
    assert evidence in found[f"{HOST}: {check}"].evidence
    wrong = [name for name, finding in found.items() if finding.verdict is not Verdict.FINE]
    assert wrong == [f"{HOST}: {check}", f"us-east-1b i-us-east-1b: {check}"]


@pytest.mark.parametrize(
    "change",
    [{"oldest_age_seconds": 4 * 3600}, {"queue_disk_percent": 80}, {"queue_depth": 90_000}],
)
def test_up_to_its_limit_it_is_fine(patient: Patient, change: dict[str, Any]) -> None:
    patient.hosts.report |= change
    found = patient.look(mail_hosts.check_mail_hosts)
    assert {finding.verdict for finding in found.values()} == {Verdict.FINE}


@pytest.mark.parametrize(
    "key",
    [*(reading.key for reading in mail_hosts.READINGS), "warm_up", "pending_reboot", "agents"],
)
def test_what_the_report_leaves_out_is_not_told_and_says_why(patient: Patient, key: str) -> None:
    del patient.hosts.report[key]
    patient.hosts.problems = ["disks: OSError(5, 'Input/output error')"]
    found = patient.look(mail_hosts.check_mail_hosts)
    (untold,) = [
        finding
        for name, finding in found.items()
        if finding.verdict is not Verdict.FINE and name.startswith(HOST)
    ]
    assert untold.verdict is Verdict.UNKNOWN
    assert f"({key}); it says: disks: OSError" in untold.evidence


PLAN = WarmUp(start=date(2026, 12, 1), messages_a_day=(200, 400, 800))
STANDS = {
    "paced": 120,
    "warm_up": 1,
    "warm_up_day": 2,
    "warm_up_days": 3,
    "warm_up_allowance": 400,
    "warm_up_sent": 400,
    "warm_up_backlog_days": 1,
}


@pytest.mark.parametrize(
    ("plan", "change", "verdict", "evidence"),
    [
        (None, {"warm_up": 0}, Verdict.FINE, "no plan, so no daily limit"),
        (
            PLAN,
            {},
            Verdict.FINE,
            "day 2 of 3: 400 of 400 sent today, 120 messages wait, which takes 1 more day",
        ),
        (PLAN, {"warm_up_day": -3}, Verdict.FINE, "the plan begins on 2026-12-01: 400 of 400"),
        (PLAN, {"warm_up_day": 4}, Verdict.FINE, "the plan is over after 3 days"),
        (PLAN, {"warm_up_backlog_days": 5}, Verdict.WRONG, "which takes 5 more days"),
        (PLAN, {"warm_up": 0}, Verdict.WRONG, "the host has no plan"),
        (None, {}, Verdict.WRONG, "the host has a plan"),
    ],
)
def test_where_the_warm_up_plan_stands(
    patient: Patient, plan: WarmUp | None, change: dict[str, Any], verdict: Verdict, evidence: str
) -> None:
    patient.settings = patient.settings.model_copy(update={"warm_up": plan})
    patient.hosts.report |= STANDS | change
    found = patient.look(mail_hosts.check_mail_hosts)
    assert found[f"{HOST}: warm-up"].verdict is verdict
    assert evidence in found[f"{HOST}: warm-up"].evidence
    others = {finding.verdict for name, finding in found.items() if "warm-up" not in name}
    assert others == {Verdict.FINE}


def test_a_pending_reboot_is_fine_and_says_when_to_do_it(patient: Patient) -> None:
    patient.hosts.report["pending_reboot"] = 1
    finding = patient.look(mail_hosts.check_mail_hosts)[f"{HOST}: pending reboot"]
    assert finding.verdict is Verdict.FINE
    assert "reboot-instances --instance-ids i-us-east-1a" in finding.remedy


@pytest.mark.parametrize(
    ("change", "check", "verdict", "evidence"),
    [
        ({"HELO": "ip-10-0-0-1.ec2.internal"}, "HELO name", Verdict.WRONG, "not mail.example.com"),
        ({"HELO": ""}, "HELO name", Verdict.UNKNOWN, "does not say"),
        ({"CLOSED": "1795687200"}, "submission", Verdict.WRONG, "since 2026-11-26 10:00 UTC"),
        ({"KEY": KEYS["s2026b"]}, "DKIM key", Verdict.WRONG, "is not the one in"),
        ({"KEY": ""}, "DKIM key", Verdict.UNKNOWN, "does not say"),
        ({"POSTMASTER": "x@example.com"}, "settings", Verdict.WRONG, "POSTMASTER is x@example.com"),
        ({"POSTMASTER": ""}, "settings", Verdict.UNKNOWN, "no POSTMASTER"),
    ],
)
def test_who_the_host_is(
    patient: Patient, change: dict[str, str], check: str, verdict: Verdict, evidence: str
) -> None:
    patient.hosts.identity |= change
    finding = patient.look(mail_hosts.check_mail_hosts)[f"{HOST}: {check}"]
    assert finding.verdict is verdict
    assert evidence in finding.evidence


def test_a_host_that_signs_with_another_selector_than_set_is_wrong(patient: Patient) -> None:
    patient.hosts.identity |= {"DKIM_SELECTOR": "s2026b", "KEY": KEYS["s2026b"]}
    found = patient.look(mail_hosts.check_mail_hosts)
    assert found[f"{HOST}: settings"].verdict is Verdict.WRONG
    assert found[f"{HOST}: DKIM key"].verdict is Verdict.FINE  # receivers can verify it
    patient.hosts.identity["DKIM_SELECTOR"] = "s2025"
    assert patient.look(mail_hosts.check_mail_hosts)[f"{HOST}: DKIM key"].verdict is Verdict.WRONG


def test_a_record_changed_in_the_hosted_zone_is_not_the_hosts_key(patient: Patient) -> None:
    patient.record_sets[KEY_NAME, "TXT"] = ['"v=DKIM1; p=AAAA"']
    assert patient.look(mail_hosts.check_mail_hosts)[f"{HOST}: DKIM key"].verdict is Verdict.WRONG


@pytest.mark.parametrize("status", ["ConnectionLost", None])
def test_a_host_without_agent_is_wrong_and_not_asked(patient: Patient, status: str | None) -> None:
    answer = patient.aws.answers["ssm", "describe_instance_information"]
    if status is None:
        del answer["InstanceInformationList"][0]
    else:
        answer["InstanceInformationList"][0]["PingStatus"] = status
    found = patient.look(mail_hosts.check_mail_hosts)
    assert found[f"{HOST}: agent"].verdict is Verdict.WRONG
    assert [name for name in found if name.startswith(HOST)] == [f"{HOST}: agent"]
    assert found["us-east-1b i-us-east-1b: port 25"].verdict is Verdict.FINE


@pytest.mark.parametrize(
    ("program", "check", "other"),
    [
        (mail_hosts.REPORT, "report", "HELO name"),
        (mail_hosts.IDENTITY, "identity", "port 25"),
    ],
)
def test_a_program_that_does_not_answer_leaves_what_the_other_says(
    patient: Patient, program: tuple[str, ...], check: str, other: str
) -> None:
    patient.hosts.failures[program] = CannotTell("TimedOut after 40 s")
    found = patient.look(mail_hosts.check_mail_hosts)
    assert found[f"{HOST}: {check}"].verdict is Verdict.UNKNOWN
    assert "TimedOut" in found[f"{HOST}: {check}"].evidence
    assert found[f"{HOST}: {other}"].verdict is Verdict.FINE


def test_a_report_that_is_none_is_not_read_as_one(patient: Patient) -> None:
    patient.hosts.report = []  # type: ignore[assignment]
    patient.hosts.problems = ["command not found"]
    finding = patient.look(mail_hosts.check_mail_hosts)[f"{HOST}: report"]
    assert finding.verdict is Verdict.UNKNOWN
    assert "command not found" in finding.evidence


def test_what_is_run_on_the_host_is_a_script() -> None:
    check = ["bash", "-n", "-c", mail_hosts.IDENTITY[2]]
    assert subprocess.run(check, check=False).returncode == 0
