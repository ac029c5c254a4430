"""Monitoring: is mail going out, to whom not, and why."""

from collections.abc import Mapping

import aws_cdk as cdk
from constructs import Construct

from stacks.alert_topic import AlertTopic
from stacks.environment import Environment
from stacks.mail_alarms import MailAlarms
from stacks.mail_dashboard import MailDashboard
from stacks.mail_metrics import MailMetrics
from stacks.submission import Submission


class Monitoring(cdk.Stack):
    """Metrics of the mail log, alarms with a runbook each, who is told, and a dashboard."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Environment,
        mail_log_name: str,
        nat_gateway_ids: Mapping[str, str],
        submission: Submission | None,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            description=f"Metrics, alarms, dashboard of {settings.sending_domain}",
        )
        # Watching holds nothing: a NAT gateway goes with its zone, whatever alarm still names it.
        # https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference-getstackoutput.html
        cdk.CrossStackReferences.of(self).consume(cdk.ReferenceStrength.WEAK)
        metrics = MailMetrics(
            self, "Metrics", environment=settings.name, mail_log_name=mail_log_name
        )
        # Alarms are known by name in a whole Region, which environments may share. With a hyphen
        # before the *, the alarms of dev-eu would be dev's too.
        alarm_prefix = f"postern/{settings.name}/"
        alerts = AlertTopic(
            self, "Alerts", address=settings.alert_address, alarm_names=f"{alarm_prefix}*"
        )
        alarms = MailAlarms(
            self,
            "Alarms",
            settings=settings,
            name_prefix=alarm_prefix,
            metrics=metrics,
            nat_gateway_ids=nat_gateway_ids,
            submission=submission,
            topic=alerts.topic,
        )
        dashboard = MailDashboard(
            self,
            "Dashboard",
            # Dashboards are known by name in the whole account.
            name=f"postern-{settings.name}-{settings.region}",
            sending_domain=settings.sending_domain,
            mail_log_name=mail_log_name,
            metrics=metrics,
            alarms=alarms.alarms,
            nat_gateway_ids=nat_gateway_ids,
        )
        cdk.CfnOutput(
            self,
            "DashboardUrl",
            value=f"https://{settings.region}.console.aws.amazon.com/cloudwatch/home"
            f"?region={settings.region}#dashboards/dashboard/{dashboard.name}",
            description="Is mail going out, to whom not, and why",
        )
