"""The dashboard: one look says whether mail goes out, to whom not, and why."""

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from stacks.mail_alarms import (
    BOUNCE_PERCENT_CRITICAL,
    BOUNCE_PERCENT_WARNING,
    bounce_rate,
    nat_gateway_metric,
)
from stacks.mail_metrics import BOUNCE_CLASSES, MailMetrics

_PERIOD = cdk.Duration.minutes(5)
_HOUR = cdk.Duration.hours(1)
_WHOLE = 24
_HALF = 12
_THIRD = 8

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html
# Grouped by status and not by the receiver's words, which have an id of their own each time.
_WORDS = "fields @timestamp, coalesce(reply, stat) as words"
_BY_RECEIVER = (
    "stats count_distinct(queue_id) as messages, count(*) as tries, latest(words) as why,"
    " latest(time) as last by domain, dsn"
    " | sort messages desc | limit 25"
)


class MailDashboard(Construct):
    """name: the dashboard's; it has the last day until its reader chooses another time."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        sending_domain: str,
        mail_log_name: str,
        metrics: MailMetrics,
        alarms: Sequence[cloudwatch.IAlarm],
        nat_gateway_ids: Mapping[str, str],
    ) -> None:
        super().__init__(scope, construct_id)
        self.name = name
        self._metrics = metrics
        self._mail_log_name = mail_log_name
        cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=name,
            default_interval=cdk.Duration.days(1),
            widgets=[
                [
                    cloudwatch.AlarmStatusWidget(
                        title=f"{sending_domain}: what is wrong",
                        alarms=alarms,
                        width=_WHOLE,
                        height=4,
                    )
                ],
                self._is_mail_going_out(),
                self._how_fast(),
                self._to_whom_not_and_why(),
                [self._policy_complaints()],
                self._hosts(nat_gateway_ids),
                [self._refused_here(), self._latest_reports()],
            ],
        )

    def _is_mail_going_out(self) -> list[cloudwatch.IWidget]:
        sent, deferred, bounced = (
            self._counted(name, color)
            for name, color in (
                ("Sent", cloudwatch.Color.GREEN),
                ("Deferred", cloudwatch.Color.ORANGE),
                ("Bounced", cloudwatch.Color.RED),
            )
        )
        rate = cloudwatch.MathExpression(
            expression="100 * bounced / (sent + bounced)",
            using_metrics={
                "bounced": self._metrics.metric("Bounced", "Sum", _PERIOD),
                "sent": self._metrics.metric("Sent", "Sum", _PERIOD),
            },
            label="Bounce rate, %",
            period=_PERIOD,
        )
        return [
            cloudwatch.SingleValueWidget(
                title="In the time shown",
                metrics=[sent, deferred, bounced, rate],
                set_period_to_time_range=True,
                width=_THIRD,
                height=6,
            ),
            cloudwatch.GraphWidget(
                title="Is mail going out?",
                left=[sent, deferred, bounced],
                left_y_axis=_from_zero(),
                width=_THIRD,
                height=6,
            ),
            cloudwatch.GraphWidget(
                title="Bounce rate of an hour, %",
                left=[bounce_rate(self._metrics, _HOUR)],
                left_annotations=[
                    cloudwatch.HorizontalAnnotation(value=percent, color=color)
                    for percent, color in (
                        (BOUNCE_PERCENT_WARNING, cloudwatch.Color.ORANGE),
                        (BOUNCE_PERCENT_CRITICAL, cloudwatch.Color.RED),
                    )
                ],
                left_y_axis=_from_zero(),
                width=_THIRD,
                height=6,
            ),
        ]

    def _how_fast(self) -> list[cloudwatch.IWidget]:
        return [
            cloudwatch.GraphWidget(
                title="Messages that wait (the fullest host), and the oldest one's age",
                left=[
                    self._highest("QueueDepth"),
                    self._highest("Paced"),
                    self._highest("Held"),
                ],
                left_y_axis=_from_zero("messages"),
                right=[self._highest("OldestMessageAge"), self._highest("OldestPacedAge")],
                right_y_axis=_from_zero("seconds"),
                width=_THIRD,
                height=6,
            ),
            cloudwatch.GraphWidget(
                title="Seconds from submission to delivery",
                left=[
                    self._metrics.metric("DeliveryDelay", statistic, _PERIOD)
                    for statistic in ("Average", "Maximum")
                ],
                left_y_axis=_from_zero("seconds"),
                width=_THIRD,
                height=6,
            ),
            cloudwatch.GraphWidget(
                title="Bounces by class (5.1 address, 5.2 mailbox, 5.7 policy), policy complaints",
                left=[
                    *(
                        self._counted(f"Bounced{status.replace('.', '')}", label=status)
                        for status in BOUNCE_CLASSES
                    ),
                    self._counted("BouncedOther", label="other"),
                    self._counted("Policy"),
                ],
                left_y_axis=_from_zero(),
                width=_THIRD,
                height=6,
            ),
        ]

    def _to_whom_not_and_why(self) -> list[cloudwatch.IWidget]:
        return [
            self._query(
                f"To whom not, and why: {title}",
                _WORDS,
                f"filter {outcome}",
                _BY_RECEIVER,
                width=_HALF,
            )
            for title, outcome in (
                ("deferred", 'outcome = "deferred"'),
                # What is given up after five days has no domain: its last deferral has.
                ("bounced or given up", 'outcome in ["bounced", "expired"]'),
            )
        ]

    def _policy_complaints(self) -> cloudwatch.IWidget:
        return self._query(
            "Policy and reputation, in the receivers' words",
            _WORDS,
            "filter policy = 1",
            "display time, domain, relay, dsn, words, queue_id",
            "sort @timestamp desc",
            "limit 25",
            width=_WHOLE,
        )

    def _hosts(self, nat_gateway_ids: Mapping[str, str]) -> list[cloudwatch.IWidget]:
        return [
            cloudwatch.GraphWidget(
                title="Hosts: 0 is well, but port 25 and reports",
                left=[
                    self._highest("DeadUnits"),
                    self._counted("SignerFailures"),
                    self._highest("SetAside"),
                    self._highest("Orphans"),
                    self._highest("PendingReboot"),
                    self._metrics.metric("Port25Open", "Minimum", _PERIOD),
                    *(
                        self._metrics.metric("Reports", "Sum", _PERIOD, zone=zone).with_(
                            label=f"Reports {zone}"
                        )
                        for zone in nat_gateway_ids
                    ),
                ],
                left_y_axis=_from_zero(),
                right=[self._highest("UndeliverableBytes")],
                right_y_axis=_from_zero("bytes"),
                width=_THIRD,
                height=7,
            ),
            cloudwatch.GraphWidget(
                title="Disks, % full, and the DKIM key's age",
                left=[
                    self._highest(name)
                    for name in ("QueueDiskUsed", "QueueInodesUsed", "RootDiskUsed")
                ],
                left_y_axis=cloudwatch.YAxisProps(min=0, max=100, show_units=False),
                right=[self._highest("DkimKeyAge")],
                right_y_axis=_from_zero("days"),
                width=_THIRD,
                height=7,
            ),
            cloudwatch.GraphWidget(
                title="NAT gateways: connections, and ports that were lacking",
                left=[
                    nat_gateway_metric(
                        "ActiveConnectionCount", nat_gateway_id, _PERIOD, "Maximum"
                    ).with_(label=f"Connections {zone}")
                    for zone, nat_gateway_id in nat_gateway_ids.items()
                ],
                left_y_axis=_from_zero(),
                right=[
                    nat_gateway_metric(name, nat_gateway_id, _PERIOD).with_(label=f"{label} {zone}")
                    for zone, nat_gateway_id in nat_gateway_ids.items()
                    for name, label in (
                        ("ErrorPortAllocation", "No port"),
                        ("PacketsDropCount", "Dropped packets"),
                    )
                ],
                right_y_axis=_from_zero(),
                width=_THIRD,
                height=7,
            ),
        ]

    def _refused_here(self) -> cloudwatch.IWidget:
        return self._query(
            "What this host did not take from its application",
            'filter outcome = "refused"',
            "stats count(*) as times, latest(time) as last by reject",
            "sort times desc",
            "limit 25",
            width=_HALF,
        )

    def _latest_reports(self) -> cloudwatch.IWidget:
        return self._query(
            "The hosts' latest reports",
            "filter report = 1",
            "stats latest(time) as last, latest(queue_depth) as waiting, "
            "latest(dead_unit_names.0) as dead_unit, latest(port25_open) as port25, "
            "latest(port25_checked) as port25_answer, latest(pending_reboot) as reboot "
            "by zone, instance_id",
            "sort last desc",
            "limit 10",
            width=_HALF,
        )

    def _counted(
        self, name: str, color: str | None = None, *, label: str | None = None
    ) -> cloudwatch.Metric:
        metric = self._metrics.metric(name, "Sum", _PERIOD)
        return metric.with_(color=color, label=label or name)

    def _highest(self, name: str) -> cloudwatch.Metric:
        """Of the hosts' values: without a dimension they are one metric."""
        return self._metrics.metric(name, "Maximum", _PERIOD)

    def _query(self, title: str, *lines: str, width: int) -> cloudwatch.IWidget:
        return cloudwatch.LogQueryWidget(
            title=title,
            log_group_names=[self._mail_log_name],
            query_lines=list(lines),
            view=cloudwatch.LogQueryVisualizationType.TABLE,
            width=width,
            height=7,
        )


def _from_zero(label: str | None = None) -> cloudwatch.YAxisProps:
    return cloudwatch.YAxisProps(min=0, label=label, show_units=False)
