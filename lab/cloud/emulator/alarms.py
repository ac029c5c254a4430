"""CloudWatch alarms on metric math.

ministack 1.5.33 refuses ``Metrics`` of a template's alarm, and loses it in a PutMetricAlarm
request. Such an alarm is kept and described here. Nothing computes its expression, so it stays in
INSUFFICIENT_DATA until somebody sets its state.
"""

from collections.abc import Callable
from typing import Any

from lab.cloud.emulator.upstream import Properties, Response, cloudwatch, provisioners, wrap

Alarm = dict[str, Any]

_OF_ONE_METRIC = (
    "MetricName",
    "Namespace",
    "Statistic",
    "ExtendedStatistic",
    "Period",
    "Dimensions",
)


def install() -> None:
    wrap(vars(provisioners), "_cw_metric_alarm_record", _record)
    wrap(vars(cloudwatch), "_put_metric_alarm", put_metric_alarm)


def _record(original: Callable[..., Alarm], name: str, properties: Properties) -> Alarm:
    """A template's alarm as it is stored."""
    if not properties.get("Metrics"):
        return original(name, properties)
    if both := sorted(properties.keys() & set(_OF_ONE_METRIC)):
        raise ValueError(f"An alarm with Metrics has no {', '.join(both)}.")
    placeholder = {"MetricName": "-", "Namespace": "-"}
    alarm = original(name, {k: v for k, v in properties.items() if k != "Metrics"} | placeholder)
    return _on_metric_math(alarm, [_query(query) for query in properties["Metrics"]])


def put_metric_alarm(
    original: Callable[..., Response],
    parameters: Any,
    request: dict[str, Any],
    *rest: Any,
) -> Response:
    """PutMetricAlarm in the protocols whose request is one document, which boto3's is."""
    answer = original(parameters, request, *rest)
    if answer[0] == 200 and request and request.get("Metrics"):
        _on_metric_math(cloudwatch._alarms[request["AlarmName"]], request["Metrics"])
    return answer


def _on_metric_math(alarm: Alarm, queries: list[dict[str, Any]]) -> Alarm:
    """Make it an alarm on these, without what describes one on a single metric."""
    for key in _OF_ONE_METRIC:
        alarm.pop(key, None)
    alarm["Metrics"] = queries
    return alarm


def _query(query: Properties) -> dict[str, Any]:
    """A template's query with the types that the API has; templates hold numbers as text too."""
    typed = dict(query)
    if "ReturnData" in typed:
        typed["ReturnData"] = str(typed["ReturnData"]).lower() == "true"
    if "Period" in typed:
        typed["Period"] = int(typed["Period"])
    if "MetricStat" in typed:
        typed["MetricStat"] = typed["MetricStat"] | {"Period": int(typed["MetricStat"]["Period"])}
    return typed
