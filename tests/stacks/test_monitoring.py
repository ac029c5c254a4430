"""Alarms that somebody can act on, told to one mailbox only, and a dashboard that shows them."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from review.snapshots import joined
from stacks.environment import load
from tests.stacks.conftest import (
    ENVIRONMENTS,
    ROOT,
    AssemblyOf,
    Synthesise,
    Templates,
    only,
    resources,
)
from tests.stacks.test_mail_metrics import filters, lines

STACK = "Monitoring"
RUNBOOKS = ROOT / "docs" / "runbooks"
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
LONGEST_DESCRIPTION = 1024
COMMANDS = {
    "doctor",
    "queue list",
    "queue show",
    "queue retry",
    "queue hold",
    "queue release",
    "queue delete",
    "send-test",
    "dkim rotate",
    "dkim status",
    "suppressions list",
    "suppressions add",
    "suppressions remove",
    "addresses",
    "addresses release",
    "port25-request",
}

QUERY_WORDS = {"fields", "filter", "stats", "sort", "limit", "display", "by", "as", "desc", "in"}

Alarm = dict[str, Any]


def alarms(monitoring: dict[str, Any], environment: str = "example") -> dict[str, Alarm]:
    """The properties of the alarms, by name without the environment's prefix."""
    prefix = f"postern/{environment}/"
    found = {}
    for resource in resources(monitoring, "AWS::CloudWatch::Alarm").values():
        name = resource["Properties"]["AlarmName"]
        assert name.startswith(prefix)
        found[name.removeprefix(prefix)] = resource["Properties"]
    return found


def runbook_of(alarm: Alarm) -> str:
    match = re.search(r" Runbook: docs/runbooks/([a-z0-9-]+)\.md$", alarm["AlarmDescription"])
    assert match, alarm["AlarmDescription"]
    return match[1]


def metrics_of(alarm: Alarm) -> Iterator[dict[str, Any]]:
    """What the alarm looks at: one metric, or those of its expression."""
    if "Metrics" not in alarm:
        yield alarm
    for part in alarm.get("Metrics", []):
        if "MetricStat" in part:
            yield part["MetricStat"]["Metric"]


# Alarms


def test_every_alarm_names_a_runbook_and_every_runbook_has_an_alarm(example: Templates) -> None:
    named = {runbook_of(alarm) for alarm in alarms(example[STACK]).values()}
    named.add("submission-unhealthy")  # where there are clients: test_submission.py
    assert named == {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}


def test_the_index_of_runbooks_has_each_of_them_once() -> None:
    linked = re.findall(r"\]\(([a-z0-9-]+)\.md\)", (RUNBOOKS / "README.md").read_text("utf-8"))
    assert sorted(linked) == sorted(
        path.stem for path in RUNBOOKS.glob("*.md") if path.stem != "README"
    )


def test_every_runbook_names_its_alarms(example: Templates) -> None:
    for name, alarm in alarms(example[STACK]).items():
        text = (RUNBOOKS / f"{runbook_of(alarm)}.md").read_text("utf-8")
        assert f"`postern-ENV-{re.sub('us-east-1[ab]$', 'ZONE', name)}`" in text, name


def test_the_runbook_of_dead_units_has_every_unit_that_a_host_reports() -> None:
    program = (ROOT / "user_data" / "report" / "postern-report").read_text("utf-8")
    units = re.findall(r'^    "([a-z0-9-]+\.(?:service|timer|mount))",$', program, re.M)
    runbook = (RUNBOOKS / "dead-units.md").read_text("utf-8")
    assert len(units) > 10
    for unit in (*units, "packet-filter"):
        assert f"`{unit.removesuffix('.service')}`" in runbook, unit


def test_what_an_alarm_or_a_runbook_tells_to_run_exists(example: Templates) -> None:
    texts = [alarm["AlarmDescription"] for alarm in alarms(example[STACK]).values()]
    texts += [path.read_text("utf-8") for path in RUNBOOKS.glob("*.md")]
    commands = [
        found
        for text in texts
        for found in re.findall(r"postern ([a-z0-9-]+(?: [a-z]+)?)[^\n`]* --environment", text)
    ]
    assert commands
    for command in commands:
        assert command in COMMANDS, command


def test_an_alarm_says_what_is_wrong_and_what_to_do_first(example: Templates) -> None:
    for name, alarm in alarms(example[STACK]).items():
        description = alarm["AlarmDescription"]
        assert description.startswith("mail.example.com: "), name
        assert description.count(". ") >= 2, name
        assert len(description) <= LONGEST_DESCRIPTION
        assert "{" not in description


def test_every_alarm_tells_its_beginning_and_its_end(example: Templates) -> None:
    (topic,) = resources(example[STACK], "AWS::SNS::Topic")
    for name, alarm in alarms(example[STACK]).items():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": topic}], name
        assert alarm.get("ActionsEnabled", True) is True


def test_every_alarm_says_what_missing_data_means(example: Templates) -> None:
    """Nothing where only trouble counts, silence where a host must speak, else as it was."""
    meaning = {name: alarm["TreatMissingData"] for name, alarm in alarms(example[STACK]).items()}
    silent = {name for name, missing in meaning.items() if missing == "breaching"}
    assert silent == {"host-silent-us-east-1a", "host-silent-us-east-1b"}
    assert set(meaning.values()) == {"breaching", "notBreaching", "ignore"}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_alarm_looks_at_a_metric_that_exists(assembly_of: AssemblyOf, environment: str) -> None:
    templates = assembly_of(environment).templates
    known = filters(templates[STACK])
    for name, alarm in alarms(templates[STACK], environment).items():
        for metric in metrics_of(alarm):
            dimensions = [dimension["Name"] for dimension in metric.get("Dimensions", [])]
            if metric["Namespace"] == "AWS/NATGateway":
                assert (metric["MetricName"], dimensions) == (
                    "ErrorPortAllocation",
                    ["NatGatewayId"],
                )
                continue
            assert metric["Namespace"] == f"Postern/{environment}", name
            (transformation,) = known[metric["MetricName"]]["MetricTransformations"]
            keys = [dimension["Key"] for dimension in transformation.get("Dimensions", [])]
            assert dimensions == keys, name


def test_no_environments_alarm_can_have_the_name_of_another_ones(example: Templates) -> None:
    """`postern-a-` + `b-c` would be `postern-a-b-` + `c`."""
    names = set(alarms(example[STACK]))
    for name in names:
        assert not [other for other in names if name.endswith(f"-{other}")], name


def test_every_zone_has_its_alarms(example: Templates) -> None:
    found = alarms(example[STACK])
    gateways = set()
    for zone in ("us-east-1a", "us-east-1b"):
        assert found[f"host-silent-{zone}"]["Dimensions"] == [{"Name": "Zone", "Value": zone}]
        (dimension,) = found[f"nat-ports-{zone}"]["Dimensions"]
        gateways.add(json.dumps(dimension["Value"]))
    assert len(gateways) == 2


def test_a_nat_gateways_alarm_is_of_its_own_zone(example: Templates) -> None:
    outputs = example["Network"]["Outputs"]
    for zone, subnet in (("us-east-1a", "publicSubnet1"), ("us-east-1b", "publicSubnet2")):
        (dimension,) = alarms(example[STACK])[f"nat-ports-{zone}"]["Dimensions"]
        output = outputs[dimension["Value"]["Fn::GetStackOutput"]["OutputName"]]
        assert subnet in output["Value"]["Ref"]


def _rate(alarm: Alarm, **values: float) -> float:
    """The alarm's expression, whose arithmetic is Python's too, with these values in it."""
    (expression,) = [part["Expression"] for part in alarm["Metrics"] if "Expression" in part]
    functions = {"IF": lambda condition, yes, no: yes if condition else no}
    return float(eval(expression, {"__builtins__": {}, **functions}, values))  # noqa: S307


@pytest.mark.parametrize(
    ("sent", "bounced", "expected"),
    [
        (1, 1, set()),
        (96, 4, set()),
        (96, 6, {"bounce-rate-warning"}),
        (950, 50, {"bounce-rate-warning"}),
        (951, 49, set()),
        (90, 10, {"bounce-rate-warning", "bounce-rate-critical"}),
        (0, 5, {"bounce-rate-warning", "bounce-rate-critical"}),
    ],
)
def test_bounces_warn_at_five_percent_and_are_critical_at_ten(
    example: Templates, sent: float, bounced: float, expected: set[str]
) -> None:
    found = alarms(example[STACK])
    raised = set()
    for name in ("bounce-rate-warning", "bounce-rate-critical"):
        alarm = found[name]
        assert alarm["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"
        assert {p["MetricStat"]["Period"] for p in alarm["Metrics"] if "MetricStat" in p} == {3600}
        if _rate(alarm, sent=sent, bounced=bounced) >= alarm["Threshold"]:
            raised.add(name)
    assert raised == expected


@pytest.mark.parametrize(
    ("name", "values", "raised"),
    [
        ("deferral-surge", {"sent": 0, "deferred": 19}, False),
        ("deferral-surge", {"sent": 20, "deferred": 20}, True),
        ("deferral-surge", {"sent": 100, "deferred": 20}, False),
        ("queue-age", {"waiting": 19, "oldest": 400_000}, False),
        ("queue-age", {"waiting": 20, "oldest": 14_400}, True),
        ("queue-age", {"waiting": 500, "oldest": 14_000}, False),
    ],
)
def test_a_few_that_wait_are_no_alarm(
    example: Templates, name: str, values: dict[str, float], raised: bool
) -> None:
    alarm = alarms(example[STACK])[name]
    assert alarm["ComparisonOperator"] == "GreaterThanOrEqualToThreshold"
    assert (_rate(alarm, **values) >= alarm["Threshold"]) is raised


def test_a_key_of_six_months_is_no_alarm_yet_and_one_day_later_it_is(example: Templates) -> None:
    alarm = alarms(example[STACK])["dkim-key-age"]
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanThreshold", 183)


# Who is told


def test_alarms_are_told_to_the_alert_address(synthesise: Synthesise) -> None:
    monitoring = synthesise(("operations@example.com", "night@example.com"))[STACK]
    (topic,) = resources(monitoring, "AWS::SNS::Topic")
    assert only(monitoring, "AWS::SNS::Subscription")["Properties"] == {
        "Protocol": "email",
        "Endpoint": "night@example.com",
        "TopicArn": {"Ref": topic},
    }


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_only_this_environments_alarms_may_use_the_topic_and_its_key(
    assembly_of: AssemblyOf, environment: str
) -> None:
    templates = assembly_of(environment).templates
    ((key, properties),) = resources(templates[STACK], "AWS::KMS::Key").items()
    place = load(ROOT / "environments" / f"{environment}.toml")
    alarms_arn = f"arn:aws:cloudwatch:{place.region}:{place.account}:alarm:postern/{environment}/*"
    condition = {
        "StringEquals": {"aws:SourceAccount": place.account},
        "ArnLike": {"aws:SourceArn": alarms_arn},
    }
    _root, of_key = properties["Properties"]["KeyPolicy"]["Statement"]
    over_tls, of_topic = only(templates[STACK], "AWS::SNS::TopicPolicy")["Properties"][
        "PolicyDocument"
    ]["Statement"]
    for statement in (of_key, of_topic):
        assert statement["Effect"] == "Allow"
        assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
        assert statement["Condition"] == condition
    assert of_topic["Action"] == "sns:Publish"
    assert (over_tls["Effect"], over_tls["Condition"]) == (
        "Deny",
        {"Bool": {"aws:SecureTransport": "false"}},
    )
    topic = only(templates[STACK], "AWS::SNS::Topic")["Properties"]
    assert topic["KmsMasterKeyId"] == {"Fn::GetAtt": [key, "Arn"]}


# The dashboard


def _dashboard(monitoring: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Its name, and its widgets from top to bottom."""
    properties = only(monitoring, "AWS::CloudWatch::Dashboard")["Properties"]
    body = json.loads(joined(properties["DashboardBody"]))
    return properties["DashboardName"], body["widgets"]


def test_the_dashboards_name_is_the_only_one_in_the_account(example: Templates) -> None:
    """Dashboards have no Region, so two environments' in two Regions would be one."""
    name, _widgets = _dashboard(example[STACK])
    assert name == "postern-example-us-east-1"


def test_the_first_widget_shows_every_alarm(example: Templates) -> None:
    _name, widgets = _dashboard(example[STACK])
    ids = resources(example[STACK], "AWS::CloudWatch::Alarm")
    assert sorted(widgets[0]["properties"]["alarms"]) == sorted(f"<{alarm}.Arn>" for alarm in ids)


def test_every_metric_is_shown(example: Templates) -> None:
    _name, widgets = _dashboard(example[STACK])
    shown = set()
    for widget in widgets:
        for namespace, name, *_rest in (
            metric
            for metric in widget["properties"].get("metrics", [])
            if isinstance(metric[0], str)
        ):
            assert namespace in ("Postern/example", "AWS/NATGateway")
            if namespace == "Postern/example":
                shown.add(name)
    # What hosts refuse is shown with its words, by a query.
    assert shown == set(filters(example[STACK])) - {"Refused"}


def test_queries_ask_for_what_the_log_has(example: Templates) -> None:
    """The mail log of this environment, and keys that its lines have."""
    _name, widgets = _dashboard(example[STACK])
    queries = [widget["properties"]["query"] for widget in widgets if widget["type"] == "log"]
    known = {key for line in lines() for key in json.loads(line)}
    assert len(queries) == 5
    for query in queries:
        source, rest = query.split(" | ", 1)
        assert source == "SOURCE '/postern/example/mail'"
        made = set(re.findall(r" as (\w+)", rest))
        unquoted = re.sub(r'"[^"]*"|@\w+|\.\d+', "", rest)
        words = set(re.findall(r"\b[a-z]\w*\b(?!\()", unquoted))
        assert words <= known | made | QUERY_WORDS, query


# What it costs


def test_the_readme_counts_what_one_zone_is_billed_for(assembly_of: AssemblyOf) -> None:
    monitoring = assembly_of("lab").templates[STACK]
    watched = [list(metrics_of(alarm)) for alarm in alarms(monitoring, "lab").values()]
    billed = (
        f"{len(filters(monitoring))} metrics at 0.30, "
        f"alarms on {sum(map(len, watched))} metrics at 0.10, a dashboard at 3.00"
    )
    assert billed in (ROOT / "README.md").read_text("utf-8")


# The other stacks


def test_watching_holds_nothing(example: Templates) -> None:
    """An import would keep a NAT gateway, and a log group, from being replaced."""
    text = json.dumps(example[STACK])
    assert "Fn::ImportValue" not in text
    assert "Fn::GetStackOutput" in text
