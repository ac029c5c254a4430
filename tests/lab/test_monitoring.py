"""What the host writes is what the deployed filters count and the deployed alarms look at."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from lab.lab import Lab
from tests.lab.waiting import eventually
from tests.stacks.filter_patterns import matches, value

pytestmark = pytest.mark.lab

MAIL_LOG = "/var/log/postern/mail.log"
REPORT_LOG = "/var/log/postern/report.log"


@pytest.fixture
def obedient_sinkhole(lab: Lab) -> Iterator[Lab]:
    """The lab, whose sinkhole accepts again afterwards, and whose queue is empty then."""
    try:
        yield lab
    finally:
        lab.sinkhole("accept")
        lab.run("postern-queue", "delete", "--destination", "a.sinkhole.example")


def _lines(lab: Lab, path: str) -> list[str]:
    return lab.run("cat", path).stdout.splitlines()


def _count(lab: Lab, line: str) -> dict[str, float]:
    """What the line adds to which metrics, by the filters that are deployed."""
    environment = lab.environment.name
    answer = lab.cloud.client("logs").describe_metric_filters(
        logGroupName=f"/postern/{environment}/mail"
    )
    counted = {}
    for rule in answer["metricFilters"]:
        (transformation,) = rule["metricTransformations"]
        assert transformation["metricNamespace"] == f"Postern/{environment}"
        if matches(rule["filterPattern"], line):
            counted[transformation["metricName"]] = value(transformation["metricValue"], line)
    return counted


def _alarms(lab: Lab) -> dict[str, dict[str, Any]]:
    """The deployed alarms, by name without the environment's prefix."""
    prefix = f"postern/{lab.environment.name}/"
    answer = lab.cloud.client("cloudwatch").describe_alarms(AlarmNamePrefix=prefix)
    return {alarm["AlarmName"].removeprefix(prefix): alarm for alarm in answer["MetricAlarms"]}


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        ("accept", {"Sent", "DeliveryDelay"}),
        ("defer-at-rcpt", {"Deferred"}),
        ("greylist", {"Deferred"}),
        ("bounce", {"Bounced", "Bounced51"}),
        ("bounce-at-data", {"Bounced", "Bounced57"}),
    ],
)
def test_a_try_is_counted_once_for_what_the_receiver_did(
    obedient_sinkhole: Lab, behaviour: str, expected: set[str]
) -> None:
    lab = obedient_sinkhole
    lab.sinkhole(behaviour)
    address = f"{uuid.uuid4().hex}@a.sinkhole.example"
    lab.send(to=[address], subject=behaviour, text="Count me.\n")
    tries = eventually(
        lambda: [
            line
            for line in _lines(lab, MAIL_LOG)
            if "outcome" in (parsed := json.loads(line)) and address in parsed.get("to", "")
        ]
    )
    assert _count(lab, tries[0]).keys() == expected


def test_the_hosts_own_mail_is_not_counted(lab: Lab) -> None:
    """Its self-test mails itself, and tries in vain to send as somebody else."""
    assert lab.run("postern-self-test", timeout=120).returncode == 0
    counted = [(json.loads(line)["message"], _count(lab, line)) for line in _lines(lab, MAIL_LOG)]
    to_itself = [metrics for message, metrics in counted if "-self-test/mailbox, " in message]
    assert to_itself
    assert not any(to_itself)
    as_another = [metrics for message, metrics in counted if "someone@foreign.invalid" in message]
    assert {"Refused": 1} in as_another


def test_a_report_has_a_value_for_every_alarm_on_the_host(lab: Lab) -> None:
    line = eventually(lambda: _lines(lab, REPORT_LOG))[-1]
    counted = _count(lab, line)
    report = json.loads(line)
    assert counted["Reports"] == 1
    assert counted["DeadUnits"] == report["dead_units"] == 0, report["dead_unit_names"]
    assert counted["DkimKeyAge"] == report["dkim_key_age_days"]
    alarms = _alarms(lab)
    # Port 25 may not be judged yet; the report then has no value, and the alarm stays as it was.
    on_hosts = {
        alarm["MetricName"]
        for alarm in alarms.values()
        if alarm["TreatMissingData"] == "ignore" and "MetricName" in alarm
    } - {"Port25Open"}
    assert on_hosts
    assert on_hosts <= counted.keys()
    assert alarms[f"host-silent-{report['zone']}"]["Dimensions"] == [
        {"Name": "Zone", "Value": report["zone"]}
    ]


def test_the_nat_gateways_alarm_looks_at_the_one_that_is_deployed(lab: Lab) -> None:
    gateways = lab.cloud.client("ec2").describe_nat_gateways()["NatGateways"]
    (gateway,) = (one for one in gateways if one["State"] == "available")
    (zone,) = lab.environment.availability_zones
    assert _alarms(lab)[f"nat-ports-{zone}"]["Dimensions"] == [
        {"Name": "NatGatewayId", "Value": gateway["NatGatewayId"]}
    ]


def test_alarms_are_told_to_the_postmaster(lab: Lab) -> None:
    """environments/lab.toml names nobody else."""
    topics = {action for alarm in _alarms(lab).values() for action in alarm["AlarmActions"]}
    (topic,) = topics
    subscriptions = lab.cloud.client("sns").list_subscriptions_by_topic(TopicArn=topic)
    (subscription,) = subscriptions["Subscriptions"]
    assert (subscription["Protocol"], subscription["Endpoint"]) == (
        "email",
        lab.environment.postmaster,
    )
