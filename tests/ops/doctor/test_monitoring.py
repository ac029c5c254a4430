"""Alarms that ring, that are silenced or blind, and that nobody hears."""

from typing import Any

import pytest

from ops.doctor import monitoring
from ops.verdicts import Verdict
from tests.ops.doctor.conftest import Patient


@pytest.mark.parametrize(
    ("change", "check", "verdict", "words"),
    [
        (
            {"StateValue": "ALARM", "StateReason": "7 % bounced"},
            "Alarm example-bounces",
            Verdict.WRONG,
            "7 % bounced",
        ),
        ({"ActionsEnabled": False}, "Alarm example-bounces", Verdict.WRONG, "tells nobody"),
        ({"StateValue": "INSUFFICIENT_DATA"}, "Alarms", Verdict.UNKNOWN, "example-bounces"),
    ],
)
def test_an_alarm_that_is_not_at_ease(
    patient: Patient, change: dict[str, Any], check: str, verdict: Verdict, words: str
) -> None:
    patient.aws.answers["cloudwatch", "describe_alarms"]["MetricAlarms"][0] |= change
    finding = patient.look(monitoring.check_alarms)[check]
    assert finding.verdict is verdict
    assert words in finding.evidence
    if change.get("StateValue") == "ALARM":
        assert finding.remedy == "docs/runbooks/example-bounces.md"


def test_an_alarm_that_somebody_deleted_is_missed(patient: Patient) -> None:
    del patient.aws.answers["cloudwatch", "describe_alarms"]["MetricAlarms"][0]
    assert patient.look(monitoring.check_alarms)["Alarm example-bounces"].verdict is Verdict.WRONG


def test_no_alarm_at_all_is_wrong(patient: Patient) -> None:
    patient.stacks["Monitoring"]["resources"] = []
    assert patient.look(monitoring.check_alarms)["Alarms"].verdict is Verdict.WRONG


def test_more_alarms_than_fit_one_call_are_all_asked_for(patient: Patient) -> None:
    names = [f"example-{number}" for number in range(150)]
    patient.stacks["Monitoring"]["resources"] = [("AWS::CloudWatch::Alarm", n) for n in names]
    patient.aws.answers["cloudwatch", "describe_alarms"] = lambda **asked: {
        "MetricAlarms": [{"AlarmName": n, "StateValue": "ALARM"} for n in asked["AlarmNames"]]
    }
    found = patient.look(monitoring.check_alarms)
    assert {f"Alarm {name}" for name in names} < found.keys()


@pytest.mark.parametrize(
    ("subscriptions", "evidence"),
    [
        (
            [{"SubscriptionArn": "PendingConfirmation", "Endpoint": "alerts@example.com"}],
            "alerts@example.com has not confirmed",
        ),
        ([], "nobody is subscribed"),
        (
            [{"SubscriptionArn": "arn:aws:sns:x", "Endpoint": "former@example.com"}],
            "operations@example.com of",
        ),
    ],
)
def test_an_alert_that_reaches_nobody_is_wrong(
    patient: Patient, subscriptions: list[dict[str, str]], evidence: str
) -> None:
    patient.aws.answers["sns", "list_subscriptions_by_topic"] = {"Subscriptions": subscriptions}
    finding = patient.look(monitoring.check_subscriptions)["Alerts by alerts"]
    assert finding.verdict is Verdict.WRONG
    assert evidence in finding.evidence
