"""When somebody has to look, and what to do first."""

from collections.abc import Mapping
from typing import Final

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns
from constructs import Construct

from stacks.environment import Environment
from stacks.mail_metrics import MailMetrics
from stacks.submission import Submission

# The rates at which managed services warn a sender and stop it.
BOUNCE_PERCENT_WARNING: Final = 5
BOUNCE_PERCENT_CRITICAL: Final = 10
# So that one bounce out of two is no alarm.
FEWEST_BOUNCES: Final = 5
DEFERRED_PERCENT: Final = 50
FEWEST_DEFERRALS: Final = 20
# A few that wait for days are for a full mailbox or a wrong domain; sendmail itself tells the
# postmaster of each, after the same four hours.
OLDEST_MESSAGE_HOURS: Final = 4
FEWEST_WAITING: Final = 20
# What a plan or a provider's limit holds back goes back to its sender after five days.
OLDEST_PACED_HOURS: Final = 72
DISK_PERCENT: Final = 80
# Six months, at which M3AAWG has a DKIM key replaced.
OLDEST_KEY_DAYS: Final = 183
POLICY_COMPLAINTS: Final = 3

_MINUTES_5: Final = cdk.Duration.minutes(5)
_MINUTES_15: Final = cdk.Duration.minutes(15)
_HOUR: Final = cdk.Duration.hours(1)

_AT_LEAST: Final = cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD
_BELOW: Final = cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
# What the host reports is as it was until the host says otherwise; that it is silent is an alarm of
# its own.
_AS_IT_WAS: Final = cloudwatch.TreatMissingData.IGNORE
_FINE: Final = cloudwatch.TreatMissingData.NOT_BREACHING
_WRONG: Final = cloudwatch.TreatMissingData.BREACHING


class MailAlarms(Construct):
    """Every alarm tells its beginning and its end to `topic` and names its runbook.

    name_prefix: what tells this environment's alarms from another one's.
    alarms: in the order of the dashboard.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Environment,
        name_prefix: str,
        metrics: MailMetrics,
        nat_gateway_ids: Mapping[str, str],
        submission: Submission | None,
        topic: sns.ITopic,
    ) -> None:
        super().__init__(scope, construct_id)
        self.alarms: list[cloudwatch.Alarm] = []
        self._settings = settings
        self._name_prefix = name_prefix
        self._metrics = metrics
        self._action = actions.SnsAction(topic)

        self._watch_deliveries()
        self._watch_the_queue()
        self._watch_the_hosts()
        for zone, nat_gateway_id in nat_gateway_ids.items():
            self._watch_zone(zone, nat_gateway_id)
        if submission:
            self._watch_submission(submission)

    def _watch_deliveries(self) -> None:
        for level, percent in (
            ("critical", BOUNCE_PERCENT_CRITICAL),
            ("warning", BOUNCE_PERCENT_WARNING),
        ):
            self._add(
                f"bounce-rate-{level}",
                runbook="bounce-rate",
                wrong=f"{percent} % or more of an hour's mail bounced.",
                first="Stop what sends to stale addresses, then see which class of bounce grew.",
                metric=bounce_rate(self._metrics, _HOUR),
                threshold=percent,
                periods=1,
                missing=_FINE,
            )
        self._add(
            "deferral-surge",
            wrong=f"Receivers put off {DEFERRED_PERCENT} % or more of what is tried, for half an "
            "hour.",
            first="Read their words: {postern} queue list --environment {environment}.",
            metric=_rate(
                self._metrics,
                "Deferred",
                _MINUTES_15,
                fewest=FEWEST_DEFERRALS,
                label="Deferred, % of what was tried",
            ),
            threshold=DEFERRED_PERCENT,
            periods=2,
            missing=_FINE,
        )
        self._add(
            "policy-complaints",
            wrong=f"Receivers refused or put off {POLICY_COMPLAINTS} or more deliveries in an hour "
            "for policy or reputation.",
            first="Read their words on the dashboard and run {postern} doctor --environment "
            "{environment}.",
            metric=self._metrics.metric("Policy", "Sum", _HOUR),
            threshold=POLICY_COMPLAINTS,
            periods=1,
            missing=_FINE,
        )
        self._add(
            "port-25-blocked",
            wrong="A host reaches no receiver on port 25; its mail waits.",
            first="If AWS has not opened port 25 yet, write the request: {postern} port25-request "
            "--environment {environment}.",
            metric=self._metrics.metric("Port25Open", "Minimum", _MINUTES_5),
            threshold=1,
            comparison=_BELOW,
            # The host looks every 15 minutes and reports what it saw last: so it looked twice.
            periods=4,
            missing=_AS_IT_WAS,
        )

    def _watch_the_queue(self) -> None:
        self._add(
            "queue-age",
            wrong=f"{FEWEST_WAITING} or more messages wait, the oldest for more than "
            f"{OLDEST_MESSAGE_HOURS} hours.",
            first="See where to and why: {postern} queue list --environment {environment}.",
            metric=_waiting_hours(self._metrics, _MINUTES_15),
            threshold=OLDEST_MESSAGE_HOURS,
            periods=2,
            missing=_AS_IT_WAS,
        )
        self._add(
            "paced-mail-age",
            wrong="Mail that the warm-up plan or a provider's limit holds back has waited for "
            f"{OLDEST_PACED_HOURS} hours; it goes back to its sender after five days.",
            first="See how much waits: {postern} doctor --environment {environment}. Send less, "
            "or plan for more.",
            metric=self._metrics.metric("OldestPacedAge", "Maximum", _MINUTES_15),
            threshold=OLDEST_PACED_HOURS * 3600,
            periods=2,
            missing=_AS_IT_WAS,
        )
        for slug, metric, what in (
            ("undeliverable-mail", "UndeliverableBytes", "A bounce that nobody took was kept."),
            ("mail-set-aside", "SetAside", "Queue files that make no message were set aside."),
        ):
            self._add(
                slug,
                wrong=what,
                first="Read it on the host before it is thrown away; the runbook says how.",
                metric=self._metrics.metric(metric, "Maximum", _MINUTES_15),
                threshold=1,
                periods=1,
                missing=_AS_IT_WAS,
            )

    def _watch_the_hosts(self) -> None:
        self._add(
            "dead-units",
            wrong="A service that must run on a host does not.",
            first="See which: {postern} doctor --environment {environment}.",
            metric=self._metrics.metric("DeadUnits", "Maximum", _MINUTES_5),
            threshold=1,
            periods=2,
            missing=_AS_IT_WAS,
        )
        self._add(
            "signer-failures",
            wrong="Mail could not be signed and was told to come again later.",
            first="See whether OpenDKIM runs: {postern} doctor --environment {environment}.",
            metric=self._metrics.metric("SignerFailures", "Sum", _MINUTES_5),
            threshold=1,
            periods=3,
            datapoints=2,
            missing=_AS_IT_WAS,
        )
        for slug, metric, what in (
            ("disk-queue", "QueueDiskUsed", "The queue volume"),
            ("disk-queue-inodes", "QueueInodesUsed", "The queue volume's table of inodes"),
            ("disk-root", "RootDiskUsed", "A host's root volume"),
        ):
            self._add(
                slug,
                runbook="disk",
                wrong=f"{what} is {DISK_PERCENT} % full or more.",
                first="See what fills it before mail is refused; the runbook says how.",
                metric=self._metrics.metric(metric, "Maximum", _MINUTES_5),
                threshold=DISK_PERCENT,
                periods=3,
                missing=_AS_IT_WAS,
            )
        self._add(
            "dkim-key-age",
            wrong=f"The DKIM key that signs is older than six months ({OLDEST_KEY_DAYS} days).",
            first="Nothing is broken. In working hours: {postern} dkim rotate --environment "
            "{environment}.",
            metric=self._metrics.metric("DkimKeyAge", "Maximum", _HOUR),
            threshold=OLDEST_KEY_DAYS,
            comparison=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            periods=1,
            missing=_AS_IT_WAS,
        )

    def _watch_zone(self, zone: str, nat_gateway_id: str) -> None:
        self._add(
            f"host-silent-{zone}",
            runbook="host-silent",
            wrong=f"The mail host in {zone} has reported nothing for 15 minutes.",
            first="See whether a deployment replaces it just now, else: {postern} doctor "
            "--environment {environment}.",
            metric=self._metrics.metric("Reports", "Sum", _MINUTES_5, zone=zone),
            threshold=1,
            comparison=_BELOW,
            periods=3,
            missing=_WRONG,
        )
        self._add(
            f"nat-ports-{zone}",
            runbook="nat-ports",
            wrong=f"The NAT gateway in {zone} had no port left for a connection.",
            first="See what on the host opens so many connections to one address.",
            metric=nat_gateway_metric("ErrorPortAllocation", nat_gateway_id, _MINUTES_5),
            threshold=1,
            periods=3,
            datapoints=2,
            missing=_FINE,
        )

    def _watch_submission(self, submission: Submission) -> None:
        self._add(
            "submission-unhealthy",
            wrong="The load balancer finds a host that takes no mail from clients, for 15 minutes.",
            first="See whether its signer and sendmail run: {postern} doctor --environment "
            "{environment}.",
            # https://docs.aws.amazon.com/elasticloadbalancing/latest/network/load-balancer-cloudwatch-metrics.html
            metric=cloudwatch.Metric(
                namespace="AWS/NetworkELB",
                metric_name="UnHealthyHostCount",
                dimensions_map={
                    "LoadBalancer": submission.load_balancer_full_name,
                    "TargetGroup": submission.target_group_full_name,
                },
                # Each of the load balancer's nodes counts for itself.
                statistic="Maximum",
                period=_MINUTES_5,
            ),
            threshold=1,
            periods=3,
            missing=_FINE,
        )

    def _add(
        self,
        slug: str,
        *,
        wrong: str,
        first: str,
        metric: cloudwatch.IMetric,
        threshold: float,
        periods: int,
        missing: cloudwatch.TreatMissingData,
        datapoints: int | None = None,
        comparison: cloudwatch.ComparisonOperator = _AT_LEAST,
        runbook: str | None = None,
    ) -> None:
        """first: what to do, with {postern} and {environment} where a command has them.

        runbook: without one the alarm's own name is its runbook's.
        """
        first = first.format(
            postern=f"{self._settings.command_prefix}postern",
            environment=self._settings.file.stem,
        )
        alarm = cloudwatch.Alarm(
            self,
            slug,
            alarm_name=self._name_prefix + slug,
            alarm_description=f"{self._settings.sending_domain}: {wrong} {first} "
            f"Runbook: docs/runbooks/{runbook or slug}.md",
            metric=metric,
            threshold=threshold,
            comparison_operator=comparison,
            evaluation_periods=periods,
            datapoints_to_alarm=datapoints or periods,
            treat_missing_data=missing,
        )
        alarm.add_alarm_action(self._action)
        alarm.add_ok_action(self._action)
        self.alarms.append(alarm)


def bounce_rate(metrics: MailMetrics, period: cdk.Duration) -> cloudwatch.MathExpression:
    """Percent of the deliveries that ended in a bounce; 0 with less than `FEWEST_BOUNCES`."""
    return _rate(metrics, "Bounced", period, fewest=FEWEST_BOUNCES, label="Bounce rate, %")


def _rate(
    metrics: MailMetrics, name: str, period: cdk.Duration, *, fewest: int, label: str
) -> cloudwatch.MathExpression:
    """Percent that a metric makes of itself and what was sent; 0 with less than `fewest` of it."""
    part = name.lower()
    return cloudwatch.MathExpression(
        expression=f"IF({part} >= {fewest}, 100 * {part} / (sent + {part}), 0)",
        using_metrics={
            part: metrics.metric(name, "Sum", period),
            "sent": metrics.metric("Sent", "Sum", period),
        },
        label=label,
        period=period,
    )


def _waiting_hours(metrics: MailMetrics, period: cdk.Duration) -> cloudwatch.MathExpression:
    return cloudwatch.MathExpression(
        expression=f"IF(waiting >= {FEWEST_WAITING}, oldest / 3600, 0)",
        using_metrics={
            "waiting": metrics.metric("QueueDepth", "Maximum", period),
            "oldest": metrics.metric("OldestMessageAge", "Maximum", period),
        },
        label="Oldest message, hours",
        period=period,
    )


def nat_gateway_metric(
    name: str, nat_gateway_id: str, period: cdk.Duration, statistic: str = "Sum"
) -> cloudwatch.Metric:
    """https://docs.aws.amazon.com/vpc/latest/userguide/metrics-dimensions-nat-gateway.html"""
    return cloudwatch.Metric(
        namespace="AWS/NATGateway",
        metric_name=name,
        dimensions_map={"NatGatewayId": nat_gateway_id},
        statistic=statistic,
        period=period,
    )
