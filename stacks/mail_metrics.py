"""What the mail log counts: metric filters over its JSON lines."""

from dataclasses import dataclass
from typing import Final

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_logs as logs
from constructs import Construct

# RFC 3463: class and subject of an enhanced status code. Any other is counted as BouncedOther.
BOUNCE_CLASSES: Final = ("5.1", "5.2", "5.3", "5.4", "5.5", "5.6", "5.7")

# By metric, the key of the report that each host writes every minute. A key that the host could not
# find out is not in the line, and then the metric has no value.
REPORT_KEYS: Final = {
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


@dataclass(frozen=True, kw_only=True)
class _Filter:
    """One metric: which lines count, and with what value.

    pattern: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/matching-terms-json-log-events.html
    default: the value of a minute whose lines do not match. Where there is none the metric costs
        nothing until something happens.
    """

    pattern: str
    value: str = "1"
    default: int | None = None
    dimensions: dict[str, str] | None = None


class MailMetrics(Construct):
    """A metric filter for each metric; see `metric`.

    Every line with an outcome of sent, deferred or bounced counts for one of Sent, Deferred and
    Bounced; a bounced one for one of Bounced51 ... Bounced57 and BouncedOther too.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, environment: str, mail_log_name: str
    ) -> None:
        super().__init__(scope, construct_id)
        self._namespace = f"Postern/{environment}"
        mail_log = logs.LogGroup.from_log_group_name(self, "MailLog", mail_log_name)
        for name, rule in _filters().items():
            logs.MetricFilter(
                self,
                name,
                log_group=mail_log,
                filter_name=name,
                filter_pattern=logs.FilterPattern.literal(rule.pattern),
                metric_namespace=self._namespace,
                metric_name=name,
                metric_value=rule.value,
                default_value=rule.default,
                dimensions=rule.dimensions,
            )

    def metric(
        self, name: str, statistic: str, period: cdk.Duration, *, zone: str | None = None
    ) -> cloudwatch.Metric:
        """A metric of this environment; `zone` is for Reports only."""
        return cloudwatch.Metric(
            namespace=self._namespace,
            metric_name=name,
            statistic=statistic,
            period=period,
            dimensions_map={"Zone": zone} if zone else None,
        )


def _filters() -> dict[str, _Filter]:
    """By metric. A number is compared, not looked for: CloudWatch has no EXISTS."""
    return {
        # Zero, not missing, while a host writes its log and no mail leaves.
        "Sent": _Filter(pattern='{ $.outcome = "sent" }', default=0),
        "Deferred": _Filter(pattern='{ $.outcome = "deferred" }', default=0),
        "Bounced": _Filter(pattern='{ $.outcome = "bounced" }', default=0),
        **{
            f"Bounced{status.replace('.', '')}": _Filter(
                pattern=f'{{ ($.outcome = "bounced") && ($.class = "{status}") }}'
            )
            for status in BOUNCE_CLASSES
        },
        "BouncedOther": _Filter(pattern=_bounced_otherwise()),
        "Policy": _Filter(pattern="{ $.policy = 1 }"),
        "Refused": _Filter(pattern='{ $.outcome = "refused" }'),
        "DeliveryDelay": _Filter(
            pattern='{ ($.outcome = "sent") && ($.delay_seconds >= 0) }', value="$.delay_seconds"
        ),
        "Reports": _Filter(pattern="{ $.report = 1 }", dimensions={"Zone": "$.zone"}),
        **{
            name: _Filter(pattern=f"{{ ($.report = 1) && ($.{key} >= 0) }}", value=f"$.{key}")
            for name, key in REPORT_KEYS.items()
        },
    }


def _bounced_otherwise() -> str:
    # Whether `!=` holds for a line without the key is not documented; with NOT EXISTS it is told.
    none = " && ".join(f'($.class != "{status}")' for status in BOUNCE_CLASSES)
    return f'{{ ($.outcome = "bounced") && (($.class NOT EXISTS) || ({none})) }}'
