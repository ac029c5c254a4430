"""The metric filters count every line of the mail log once, and where it belongs.

The lines are in tests/stacks/mail_log, one JSON object each, as a host writes them.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.stacks.conftest import ENVIRONMENTS, AssemblyOf, Templates, only, resources
from tests.stacks.filter_patterns import matches, value

CORPUS = sorted((Path(__file__).parent / "mail_log").glob("*.jsonl"))
OUTCOMES = {"sent": "Sent", "deferred": "Deferred", "bounced": "Bounced"}
# None is a delivery: `queued` and `paced` were not tried, `refused` never came in, `expired` was
# given up after five days and had been counted as deferred at each try.
OTHER_OUTCOMES = {"queued", "paced", "refused", "expired"}
BOUNCED_BY_CLASS = {f"Bounced5{subject}" for subject in range(1, 8)} | {"BouncedOther"}
REPORTED = {
    "QueueDepth": "queue_depth",
    "OldestMessageAge": "oldest_age_seconds",
    "Held": "held",
    "Paced": "paced",
    "OldestPacedAge": "oldest_paced_age_seconds",
    "SetAside": "set_aside",
    "Orphans": "orphans",
    "UndeliverableBytes": "undeliverable_bytes",
    "DeadUnits": "dead_units",
    "QueueDiskUsed": "queue_disk_percent",
    "QueueInodesUsed": "queue_inodes_percent",
    "RootDiskUsed": "root_disk_percent",
    "PendingReboot": "pending_reboot",
    "Port25Open": "port25_open",
    "DkimKeyAge": "dkim_key_age_days",
    "SignerFailures": "signer_failures",
}
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
LONGEST_PATTERN = 1024
MOST_FILTERS = 100

# Values by metric.
Counted = dict[str, float]


def filters(monitoring: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The properties of the metric filters, by metric."""
    found = {}
    for resource in resources(monitoring, "AWS::Logs::MetricFilter").values():
        (transformation,) = resource["Properties"]["MetricTransformations"]
        found[transformation["MetricName"]] = resource["Properties"]
    return found


def lines() -> list[str]:
    return [line for file in CORPUS for line in file.read_text(encoding="utf-8").splitlines()]


def count(monitoring: dict[str, Any], line: str) -> Counted:
    """What the line adds to which metrics."""
    return {
        metric: value(properties["MetricTransformations"][0]["MetricValue"], line)
        for metric, properties in filters(monitoring).items()
        if matches(properties["FilterPattern"], line)
    }


def counted(example: Templates) -> Iterable[tuple[dict[str, Any], Counted]]:
    """Every line of the corpus with what it adds to which metrics."""
    return [(json.loads(line), count(example["Monitoring"], line)) for line in lines()]


def test_every_line_with_an_outcome_is_counted_exactly_once(example: Templates) -> None:
    for line, metrics in counted(example):
        outcome = line.get("outcome")
        assert outcome in {None, *OUTCOMES, *OTHER_OUTCOMES}, line
        expected = {OUTCOMES[outcome]} if outcome in OUTCOMES else set()
        assert metrics.keys() & set(OUTCOMES.values()) == expected, line


def test_every_bounce_is_counted_in_exactly_one_class(example: Templates) -> None:
    for line, metrics in counted(example):
        classes = metrics.keys() & BOUNCED_BY_CLASS
        if line.get("outcome") != "bounced":
            assert not classes, line
            continue
        named = f"Bounced{line['class'].replace('.', '')}"
        assert classes == {named if named in BOUNCED_BY_CLASS else "BouncedOther"}, line


def test_a_bounce_without_a_class_is_counted_too(example: Templates) -> None:
    line = json.dumps({"outcome": "bounced"})
    assert count(example["Monitoring"], line).keys() == {"Bounced", "BouncedOther"}


def test_the_delay_of_what_was_sent_is_the_lines_own(example: Templates) -> None:
    for line, metrics in counted(example):
        if line.get("outcome") == "sent":
            assert metrics["DeliveryDelay"] == line["delay_seconds"]
        else:
            assert "DeliveryDelay" not in metrics, line


def test_policy_and_refusals_are_what_the_host_says_they_are(example: Templates) -> None:
    for line, metrics in counted(example):
        assert ("Policy" in metrics) is ("policy" in line), line
        assert ("Refused" in metrics) is (line.get("outcome") == "refused"), line


def test_each_value_of_a_report_is_a_metric_and_one_that_is_lacking_is_none(
    example: Templates,
) -> None:
    for line, metrics in counted(example):
        reported = {metric: line[key] for metric, key in REPORTED.items() if key in line}
        if "report" in line:
            assert metrics == {"Reports": 1, **reported}
        else:
            assert not metrics.keys() & {"Reports", *REPORTED}, line


def test_the_corpus_has_a_line_of_every_kind(example: Templates) -> None:
    """Otherwise the tests above would prove nothing of some filter."""
    seen: set[str] = set()
    outcomes = set()
    for line, metrics in counted(example):
        seen |= metrics.keys()
        outcomes.add(line.get("outcome"))
    assert seen == set(filters(example["Monitoring"]))
    assert outcomes == {None, *OUTCOMES, *OTHER_OUTCOMES}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_filters_read_the_log_that_the_hosts_write(
    assembly_of: AssemblyOf, environment: str
) -> None:
    templates = assembly_of(environment).templates
    mail_log = only(templates["MailHosts"], "AWS::Logs::LogGroup")["Properties"]["LogGroupName"]
    found = filters(templates["Monitoring"])
    assert {properties["LogGroupName"] for properties in found.values()} == {mail_log}
    assert len(found) < MOST_FILTERS
    for properties in found.values():
        (transformation,) = properties["MetricTransformations"]
        assert transformation["MetricNamespace"] == f"Postern/{environment}"
        assert len(properties["FilterPattern"]) <= LONGEST_PATTERN


def test_what_is_not_there_every_minute_costs_nothing_until_it_happens(example: Templates) -> None:
    """A default value makes a metric of every minute, and is refused beside a dimension."""
    with_default = {
        metric
        for metric, properties in filters(example["Monitoring"]).items()
        if "DefaultValue" in properties["MetricTransformations"][0]
    }
    assert with_default == {"Sent", "Deferred", "Bounced"}


def test_a_host_is_told_from_another_by_its_zone(example: Templates) -> None:
    (transformation,) = filters(example["Monitoring"])["Reports"]["MetricTransformations"]
    assert transformation["Dimensions"] == [{"Key": "Zone", "Value": "$.zone"}]
