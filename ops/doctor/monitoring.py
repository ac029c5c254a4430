"""The alarms, and whether anybody hears them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ops.command_lines import cdk_deploy
from ops.doctor.facts import Facts
from ops.verdicts import Finding, Verdict

# What DescribeAlarms takes at a time.
_MOST_NAMES = 100


def check_alarms(facts: Facts) -> Iterator[Finding]:
    """No alarm of the environment rings, none is silenced, each one has data to judge by."""
    alarms = _alarms(facts)
    if not alarms:
        yield Finding(
            check="Alarms",
            verdict=Verdict.WRONG,
            evidence="the stack Monitoring has no alarm",
            remedy=f"Deploy it: {cdk_deploy(facts.settings)}",
        )
        return
    for alarm in alarms:
        if alarm["StateValue"] == "ALARM":
            yield Finding(
                check=f"Alarm {alarm['AlarmName']}",
                verdict=Verdict.WRONG,
                evidence=alarm.get("StateReason", "in state ALARM"),
                remedy=alarm.get("AlarmDescription") or "See the alarm in CloudWatch.",
            )
        elif not alarm.get("ActionsEnabled", True):
            yield Finding(
                check=f"Alarm {alarm['AlarmName']}",
                verdict=Verdict.WRONG,
                evidence="its actions are off: it tells nobody",
                remedy=f"aws cloudwatch enable-alarm-actions --alarm-names {alarm['AlarmName']}",
            )
    # One that is the stack's, and that CloudWatch does not have, was deleted by hand.
    names = {alarm["AlarmName"] for alarm in alarms}
    for name in _names(facts):
        if name not in names:
            yield Finding(
                check=f"Alarm {name}",
                verdict=Verdict.WRONG,
                evidence="deployed, and not there any more",
                remedy="Somebody deleted it, which no deployment notices. aws cloudformation "
                "detect-stack-drift --stack-name "
                f"{facts.deployment.stack_name('Monitoring')}, then "
                "describe-stack-resource-drifts, shows what was deployed: make it again with that.",
            )
    without_data = [a["AlarmName"] for a in alarms if a["StateValue"] == "INSUFFICIENT_DATA"]
    if without_data:
        yield Finding(
            check="Alarms",
            verdict=Verdict.UNKNOWN,
            evidence=f"{len(without_data)} of {len(alarms)} have no data to judge by: "
            f"{', '.join(sorted(without_data))}",
            remedy="A new alarm gets its first data within minutes of the first host's start. "
            "Later it means that the host's reports do not arrive: see the CloudWatch agent "
            "(systemctl status amazon-cloudwatch-agent on the host).",
        )
    else:
        quiet = sum(alarm["StateValue"] == "OK" for alarm in alarms)
        yield Finding(
            check="Alarms", verdict=Verdict.FINE, evidence=f"{quiet} of {len(alarms)} are quiet"
        )


def check_subscriptions(facts: Facts) -> Iterator[Finding]:
    """Each topic that alarms go to has somebody who confirmed to be told."""
    for topic in facts.deployment.stack("Monitoring").of_type("AWS::SNS::Topic"):
        arn = topic.physical_id
        check = f"Alerts by {arn.rpartition(':')[2]}"
        subscriptions = facts.deployment.pages(
            "sns", "list_subscriptions_by_topic", "Subscriptions", TopicArn=arn
        )
        pending = [
            subscription["Endpoint"]
            for subscription in subscriptions
            if not subscription["SubscriptionArn"].startswith("arn:")
        ]
        if pending or not subscriptions:
            yield Finding(
                check=check,
                verdict=Verdict.WRONG,
                evidence=f"{', '.join(pending)} has not confirmed"
                if pending
                else "nobody is subscribed",
                remedy="Nobody is told of an alarm until the link in AWS's mail (from "
                "no-reply@sns.amazonaws.com, valid three days) is followed. To get a new one: aws "
                f"sns subscribe --topic-arn {arn} --protocol email --notification-endpoint ADDRESS",
            )
        elif facts.settings.alert_address not in (s["Endpoint"] for s in subscriptions):
            yield Finding(
                check=check,
                verdict=Verdict.WRONG,
                evidence=f"{facts.settings.alert_address} of {facts.settings.file} is not told",
                remedy=f"Deploy Monitoring: {cdk_deploy(facts.settings)}",
            )
        else:
            endpoints = ", ".join(subscription["Endpoint"] for subscription in subscriptions)
            yield Finding(check=check, verdict=Verdict.FINE, evidence=endpoints)


def _names(facts: Facts) -> list[str]:
    stack = facts.deployment.stack("Monitoring")
    return [
        resource.physical_id
        for kind in ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm")
        for resource in stack.of_type(kind)
    ]


def _alarms(facts: Facts) -> list[dict[str, Any]]:
    names = _names(facts)
    alarms: list[dict[str, Any]] = []
    for start in range(0, len(names), _MOST_NAMES):
        answer = facts.deployment.call(
            "cloudwatch",
            "describe_alarms",
            AlarmNames=names[start : start + _MOST_NAMES],
            AlarmTypes=["MetricAlarm", "CompositeAlarm"],
            MaxRecords=_MOST_NAMES,
        )
        alarms += answer["MetricAlarms"] + answer.get("CompositeAlarms", [])
    return alarms
