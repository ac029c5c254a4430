"""What a stack that watches mail is made of deploys, can be asked, and goes away."""

import datetime
import json
from typing import Any

import pytest

from lab.cloud.cloud import Cloud
from tests.lab.cloud.stacks import Stack, Template

pytestmark = pytest.mark.lab

RATE = [
    {"Id": "rate", "Expression": "100 * bounced / (sent + bounced)", "ReturnData": True},
    *(
        {
            "Id": name,
            "MetricStat": {
                "Metric": {"Namespace": "Postern/test", "MetricName": name.title()},
                "Period": 300,
                "Stat": "Sum",
            },
            "ReturnData": False,
        }
        for name in ("sent", "bounced")
    ),
]


def watching(*, threshold: int) -> Template:
    """A metric filter, an encrypted topic with a subscriber, two alarms and a dashboard."""
    common = {
        "ComparisonOperator": "GreaterThanThreshold",
        "EvaluationPeriods": 1,
        "Threshold": threshold,
        "AlarmActions": [{"Ref": "Topic"}],
    }
    return {
        "Resources": {
            "Key": {
                "Type": "AWS::KMS::Key",
                "Properties": {
                    "EnableKeyRotation": True,
                    "KeyPolicy": {
                        "Version": "2012-10-17",
                        "Statement": [
                            {
                                "Effect": "Allow",
                                "Principal": {"AWS": "arn:aws:iam::000000000000:root"},
                                "Action": "kms:*",
                                "Resource": "*",
                            }
                        ],
                    },
                },
            },
            "Topic": {
                "Type": "AWS::SNS::Topic",
                "Properties": {"KmsMasterKeyId": {"Fn::GetAtt": ["Key", "Arn"]}},
            },
            "Subscription": {
                "Type": "AWS::SNS::Subscription",
                "Properties": {
                    "TopicArn": {"Ref": "Topic"},
                    "Protocol": "email",
                    "Endpoint": "postmaster@example.net",
                },
            },
            "Group": {"Type": "AWS::Logs::LogGroup", "Properties": {}},
            "Bounced": {
                "Type": "AWS::Logs::MetricFilter",
                "Properties": {
                    "LogGroupName": {"Ref": "Group"},
                    "FilterPattern": '{ $.outcome = "bounced" }',
                    "MetricTransformations": [
                        {
                            "MetricNamespace": "Postern/test",
                            "MetricName": "Bounced",
                            "MetricValue": "1",
                        }
                    ],
                },
            },
            "Ports": {
                "Type": "AWS::CloudWatch::Alarm",
                "Properties": {
                    **common,
                    "AlarmName": "test-ports",
                    "Namespace": "AWS/NATGateway",
                    "MetricName": "ErrorPortAllocation",
                    "Dimensions": [{"Name": "NatGatewayId", "Value": "nat-1"}],
                    "Statistic": "Sum",
                    "Period": 300,
                    "TreatMissingData": "notBreaching",
                },
            },
            "Rate": {
                "Type": "AWS::CloudWatch::Alarm",
                "Properties": {
                    **common,
                    "AlarmName": "test-rate",
                    "DatapointsToAlarm": 1,
                    "TreatMissingData": "notBreaching",
                    "Metrics": RATE,
                },
            },
            "Dashboard": {
                "Type": "AWS::CloudWatch::Dashboard",
                "Properties": {
                    "DashboardName": "test",
                    "DashboardBody": json.dumps({"widgets": []}),
                },
            },
        }
    }


@pytest.fixture
def stack(cloud: Cloud) -> Stack:
    return Stack(cloud, "watching")


def alarms(cloud: Cloud) -> dict[str, dict[str, Any]]:
    described = cloud.client("cloudwatch").describe_alarms(AlarmNamePrefix="test-")
    return {alarm["AlarmName"]: alarm for alarm in described["MetricAlarms"]}


def test_it_is_deployed_updated_and_deleted(cloud: Cloud, stack: Stack) -> None:
    stack.create(watching(threshold=5))
    assert stack.outcome() == "CREATE_COMPLETE", stack.reasons()
    created = alarms(cloud)
    assert created["test-rate"]["Metrics"] == RATE
    assert "MetricName" not in created["test-rate"]
    assert created["test-ports"]["MetricName"] == "ErrorPortAllocation"
    assert created["test-ports"]["TreatMissingData"] == "notBreaching"
    # The other one's metric has values wherever a NAT gateway was made before.
    assert created["test-rate"]["StateValue"] == "INSUFFICIENT_DATA"

    stack.update(watching(threshold=10))
    assert stack.outcome() == "UPDATE_COMPLETE", stack.reasons()
    assert {alarm["Threshold"] for alarm in alarms(cloud).values()} == {10}

    assert stack.delete() == "DELETE_COMPLETE", stack.reasons()
    assert alarms(cloud) == {}


def test_an_alarm_is_on_a_metric_or_on_an_expression_of_some(stack: Stack) -> None:
    template = watching(threshold=5)
    template["Resources"]["Rate"]["Properties"]["Statistic"] = "Sum"
    stack.name = "watching-both"
    stack.create(template)
    assert stack.outcome() == "ROLLBACK_COMPLETE"
    assert "An alarm with Metrics has no Statistic." in " ".join(stack.reasons())


def test_an_alarm_s_state_can_be_set_and_put_again(cloud: Cloud) -> None:
    cloudwatch = cloud.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="test-put",
        ComparisonOperator="GreaterThanThreshold",
        EvaluationPeriods=1,
        Threshold=5,
        Metrics=RATE,
    )
    cloudwatch.set_alarm_state(AlarmName="test-put", StateValue="ALARM", StateReason="a rehearsal")
    told = alarms(cloud)["test-put"]
    cloudwatch.delete_alarms(AlarmNames=["test-put"])

    assert told["Metrics"] == RATE
    assert (told["StateValue"], told["StateReason"]) == ("ALARM", "a rehearsal")


def test_a_metric_that_nobody_sent_has_no_values(cloud: Cloud) -> None:
    now = datetime.datetime.now(datetime.UTC)
    answer = cloud.client("cloudwatch").get_metric_data(
        MetricDataQueries=[
            {
                "Id": "ports",
                "MetricStat": {
                    "Metric": {
                        "Namespace": "AWS/NATGateway",
                        "MetricName": "ErrorPortAllocation",
                        "Dimensions": [{"Name": "NatGatewayId", "Value": "nat-1"}],
                    },
                    "Period": 300,
                    "Stat": "Sum",
                },
            }
        ],
        StartTime=now - datetime.timedelta(hours=1),
        EndTime=now,
    )
    (result,) = answer["MetricDataResults"]
    assert (result["Id"], result["Values"], result["Timestamps"]) == ("ports", [], [])
