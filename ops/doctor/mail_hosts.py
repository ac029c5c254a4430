"""Each mail host: what it says of itself, asked through Run Command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ops.command_lines import cdk_deploy, postern
from ops.deployment import CannotTell, MailHost
from ops.doctor.dkim import same_key
from ops.doctor.facts import Facts
from ops.run_command import run
from ops.verdicts import Finding, Verdict

REPORT = ("/usr/local/sbin/postern-report", "--probe")
# It tries three receivers, each for some seconds.
REPORT_SECONDS = 40
OLDEST_MESSAGE_SECONDS = 4 * 3600
FULLEST_PERCENT = 80
# Mail is tried for five days (sendmail.mc), and today is one of them.
LONGEST_BACKLOG_DAYS = 4
AGENTS = ("amazon-ssm-agent", "amazon-cloudwatch-agent")

# `$j` is what sendmail says after EHLO. Of the DKIM key only the public half leaves the host, so
# that nobody needs to read the secret to compare it.
_IDENTITY = r"""
set -o pipefail
sed -n '/^\(SENDING_DOMAIN\|POSTMASTER\|DKIM_SELECTOR\)=/p' /etc/postern/settings
stat --format=CLOSED=%Y /var/spool/queue/closed 2>/dev/null || true
echo "HELO=$(sendmail -d0.1 -bt </dev/null | sed -n 's/.* \$j = //p')"
echo "KEY=$(openssl pkey -in /run/dkim-key/private.pem -pubout -outform DER | base64 -w0)"
"""
IDENTITY = ("/bin/bash", "-c", _IDENTITY)
IDENTITY_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One number of a host's report (see postern-report) and what it means.

    wrong: whether a value is. shown: the value in words. key: in the report; left out there when
    the host could not find it out.
    """

    check: str
    key: str
    wrong: Callable[[float], bool]
    shown: Callable[[Mapping[str, Any]], str]
    remedy: str


def _above(limit: float) -> Callable[[float], bool]:
    return lambda value: value > limit


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


READINGS = (
    Reading(
        check="port 25",
        key="port25_open",
        wrong=lambda value: value != 1,
        shown=lambda report: (
            f"{'open' if report['port25_open'] == 1 else 'closed'}: "
            f"{report.get('port25_checked', 'the host does not say by whom')}"
        ),
        remedy="AWS blocks port 25 until asked, and again when it finds reason to: "
        "{port25_request} writes the request. If it was open before, see "
        "the account's AWS Health events and mail. Mail waits in the queue, for up to five days.",
    ),
    Reading(
        check="TLS at receivers",
        key="port25_tls",
        wrong=lambda value: value != 1,
        shown=lambda report: "offered" if report["port25_tls"] == 1 else "not offered",
        remedy="Every large receiver offers STARTTLS, so something on the way takes it out (a "
        "firewall, a proxy): see the VPC's routes. Mail goes out unencrypted until then.",
    ),
    Reading(
        check="queue",
        key="oldest_age_seconds",
        wrong=_above(OLDEST_MESSAGE_SECONDS),
        shown=lambda report: (
            f"{report.get('queue_depth', 'an unknown number of')} messages, the oldest "
            f"{_duration(report['oldest_age_seconds'])} old"
            + (f", {report['held']} held" if report.get("held") else "")
            + (f"; {report['paced']} more are paced" if report.get("paced") else "")
        ),
        remedy="{queue_list} says whose mail waits and why.",
    ),
    Reading(
        check="messages set aside",
        key="set_aside",
        wrong=_above(0),
        shown=lambda report: f"{report['set_aside']}",
        remedy="sendmail could not read these queue files and renamed them (Qf): nothing sends "
        "them. {queue_list} shows them; see "
        "docs/operations.md, the queue.",
    ),
    Reading(
        check="orphans in the queue",
        key="orphans",
        wrong=_above(0),
        shown=lambda report: f"{report['orphans']} message bodies without an envelope",
        remedy="What a crash left behind of messages that were not accepted, or were delivered. "
        "Look at them in /var/spool/queue (df files without a qf file), then remove them.",
    ),
    Reading(
        check="undeliverable bounces",
        key="undeliverable_bytes",
        wrong=_above(0),
        shown=lambda report: f"{report['undeliverable_bytes']} bytes",
        remedy="Mail that neither its recipient nor its sender nor the postmaster could be given "
        "is kept on the host. Read it there (sudo less /var/spool/queue/undeliverable), then empty "
        "it (sudo truncate --size=0 of that file).",
    ),
    Reading(
        check="units",
        key="dead_units",
        wrong=_above(0),
        shown=lambda report: (
            f"{report['dead_units']} dead: {', '.join(report.get('dead_unit_names', []))}"
            if report["dead_units"]
            else "all run"
        ),
        remedy="aws ssm start-session --target {instance}, then systemctl status UNIT and "
        "systemctl restart UNIT. Mail is kept meanwhile. If that does not help, terminate the "
        "instance: a new one takes over the queue.",
    ),
    Reading(
        check="queue volume",
        key="queue_disk_percent",
        wrong=_above(FULLEST_PERCENT),
        shown=lambda report: f"{report['queue_disk_percent']} % full",
        remedy="{queue_list}: what fills it? Full, the host "
        "accepts no more mail. host.queue_volume_gib can grow.",
    ),
    Reading(
        check="queue volume's inodes",
        key="queue_inodes_percent",
        wrong=_above(FULLEST_PERCENT),
        shown=lambda report: f"{report['queue_inodes_percent']} % used",
        remedy="Very many messages wait: {queue_list}. "
        "host.queue_volume_gib can grow, and the inodes with it.",
    ),
    Reading(
        check="root volume",
        key="root_disk_percent",
        wrong=_above(FULLEST_PERCENT),
        shown=lambda report: f"{report['root_disk_percent']} % full",
        remedy="aws ssm start-session --target {instance}, then sudo du -xh / | sort -h | tail. "
        "Terminating the instance brings a new one with an empty root volume and the same queue.",
    ),
)


def check_mail_hosts(facts: Facts) -> Iterator[Finding]:
    """Every host in service, each by itself."""
    hosts = facts.hosts()
    information = {
        answer["InstanceId"]: answer
        for answer in facts.deployment.pages(
            "ssm",
            "describe_instance_information",
            "InstanceInformationList",
            Filters=[{"Key": "InstanceIds", "Values": [host.instance_id for host in hosts]}],
        )
    }
    with ThreadPoolExecutor() as executor:
        findings = executor.map(
            lambda host: list(_host(facts, host, information.get(host.instance_id, {}))), hosts
        )
        for found in findings:
            yield from found


def _host(facts: Facts, host: MailHost, information: Mapping[str, Any]) -> Iterator[Finding]:
    prefix = f"{host.zone} {host.instance_id}"
    status = information.get("PingStatus", "never seen")
    if status != "Online":
        yield Finding(
            check=f"{prefix}: agent",
            verdict=Verdict.WRONG,
            evidence=f"Systems Manager: {status}, so the host itself could not be asked",
            remedy="A host that just started needs a minute. Otherwise read aws ec2 "
            f"get-console-output --instance-id {host.instance_id}; terminating the instance brings "
            "a new one with the same queue.",
        )
        return
    yield Finding(
        check=f"{prefix}: agent",
        verdict=Verdict.FINE,
        evidence=f"Systems Manager: Online, version {information.get('AgentVersion', 'unknown')}",
    )
    with ThreadPoolExecutor() as executor:
        report = executor.submit(_report, facts, host)
        identity = executor.submit(_identity, facts, host)
    try:
        yield from _identity_findings(facts, prefix, host, identity.result())
    except CannotTell as failure:
        yield _untold(f"{prefix}: identity", str(failure), host)
    try:
        yield from _report_findings(facts, prefix, host, *report.result())
    except CannotTell as failure:
        yield _untold(f"{prefix}: report", str(failure), host)


def _report(facts: Facts, host: MailHost) -> tuple[dict[str, Any], str]:
    """The host's report, and why something is left out of it, if the host says."""
    output = run(facts.deployment, host.instance_id, REPORT, seconds=REPORT_SECONDS)
    try:
        report = json.loads(output.stdout)
    except json.JSONDecodeError:
        report = None
    if not isinstance(report, dict):
        said = output.stderr.strip() or output.stdout.strip()
        raise CannotTell(f"postern-report ended with status {output.exit_status}: {said[:500]}")
    # A part that fails costs the report that part only.
    problems = [
        line.removeprefix("postern-report: ")
        for line in output.stderr.splitlines()
        if line.startswith("postern-report: ")
    ]
    return report, "; ".join(problems)


def _identity(facts: Facts, host: MailHost) -> dict[str, str]:
    output = run(facts.deployment, host.instance_id, IDENTITY, seconds=IDENTITY_SECONDS)
    return {
        name: value
        for name, equals, value in (line.partition("=") for line in output.stdout.splitlines())
        if equals and value
    }


def _identity_findings(
    facts: Facts, prefix: str, host: MailHost, told: Mapping[str, str]
) -> Iterator[Finding]:
    settings = facts.settings
    wanted = {
        "SENDING_DOMAIN": settings.sending_domain,
        "POSTMASTER": settings.postmaster,
        "DKIM_SELECTOR": settings.dkim.signing,
    }
    missing = [name for name in wanted if name not in told]
    others = [
        f"{name} is {told[name]}, and {settings.file} says {value}"
        for name, value in wanted.items()
        if name not in missing and told[name] != value
    ]
    deploy = cdk_deploy(settings)
    yield Finding(
        check=f"{prefix}: settings",
        verdict=Verdict.WRONG if others else Verdict.UNKNOWN if missing else Verdict.FINE,
        evidence="; ".join([*others, *(f"no {name}" for name in missing)])
        or f"signs as {settings.sending_domain} with {settings.dkim.signing}",
        remedy=f"Deploy what the file says, or put the file back: {deploy}"
        if others or missing
        else "",
    )
    yield _submission(facts, prefix, host, told.get("CLOSED"))
    yield _helo(facts, prefix, told.get("HELO"))
    yield _key(facts, prefix, told)


def _submission(facts: Facts, prefix: str, host: MailHost, closed: str | None) -> Finding:
    check = f"{prefix}: submission"
    if closed is None:
        return Finding(check=check, verdict=Verdict.FINE, evidence="it takes mail")
    since = datetime.fromtimestamp(int(closed), UTC)
    return Finding(
        check=check,
        verdict=Verdict.WRONG,
        evidence=f"it takes no new mail since {since:%Y-%m-%d %H:%M} UTC, to be drained",
        remedy=f"{postern(facts.settings, f'zones drain {host.zone}')} says whether its queue is "
        "empty, so that the zone may be removed (docs/operations.md). To keep the zone: "
        f"{postern(facts.settings, f'zones open {host.zone}')}",
    )


def _helo(facts: Facts, prefix: str, helo: str | None) -> Finding:
    check = f"{prefix}: HELO name"
    domain = facts.settings.sending_domain
    if helo == domain:
        return Finding(check=check, verdict=Verdict.FINE, evidence=helo)
    remedy = (
        "The host's name was changed on the host (hostnamectl), or sendmail's configuration was. "
        "Terminating the instance brings a new one, as it was deployed, with the same queue."
    )
    return Finding(
        check=check,
        verdict=Verdict.WRONG if helo else Verdict.UNKNOWN,
        evidence=f"{helo}, not {domain}, which reverse DNS names"
        if helo
        else "sendmail on the host does not say",
        remedy=remedy,
    )


def _key(facts: Facts, prefix: str, told: Mapping[str, str]) -> Finding:
    check = f"{prefix}: DKIM key"
    restart = "On the host: sudo systemctl restart dkim-key opendkim fetches the stored key again."
    selector, key = told.get("DKIM_SELECTOR"), told.get("KEY")
    if selector is None or key is None:
        return Finding(
            check=check,
            verdict=Verdict.UNKNOWN,
            evidence="the host does not say which key it signs with",
            remedy=f"Nothing leaves unsigned: without a key mail waits. {restart}",
        )
    # By the settings' selectors only: what else a host signs with is a finding of its own.
    if selector not in facts.settings.dkim.selectors:
        return Finding(
            check=check,
            verdict=Verdict.WRONG,
            evidence=f"it signs with {selector}, which {facts.settings.file} does not have",
            remedy="Add it to dkim.selectors again, or deploy the file as it is.",
        )
    record = facts.dkim_record(selector)
    held = facts.hosted_zone()[record]
    if len(held) == 1 and same_key(held[0], key):
        return Finding(
            check=check,
            verdict=Verdict.FINE,
            evidence=f"the host's key {selector} is the one in {record.name}",
        )
    return Finding(
        check=check,
        verdict=Verdict.WRONG,
        evidence=f"the host's key {selector} is not the one in {record.name} of the hosted zone: "
        "receivers refuse its signatures",
        remedy="If the record was changed by hand, put it back (see the finding "
        f"{record.title}). If the host's key is the wrong one: {restart}",
    )


def _report_findings(
    facts: Facts, prefix: str, host: MailHost, report: Mapping[str, Any], problems: str
) -> Iterator[Finding]:
    names = {
        "instance": host.instance_id,
        "port25_request": postern(facts.settings, "port25-request"),
        "queue_list": postern(facts.settings, "queue list"),
    }
    for reading in READINGS:
        check = f"{prefix}: {reading.check}"
        value = report.get(reading.key)
        if value is None:
            yield _untold(check, _left_out(reading.key, problems), host)
            continue
        wrong = reading.wrong(value)
        yield Finding(
            check=check,
            verdict=Verdict.WRONG if wrong else Verdict.FINE,
            evidence=reading.shown(report),
            remedy=reading.remedy.format(**names) if wrong else "",
        )
    if "warm_up" in report:
        yield _warm_up(facts, f"{prefix}: warm-up", report, names["queue_list"])
    else:
        yield _untold(f"{prefix}: warm-up", _left_out("warm_up", problems), host)
    if "pending_reboot" in report:
        yield _reboot(f"{prefix}: pending reboot", host, report)
    else:
        yield _untold(f"{prefix}: pending reboot", _left_out("pending_reboot", problems), host)
    if "agents" in report:
        yield _agents(f"{prefix}: agents", report["agents"])
    else:
        yield _untold(f"{prefix}: agents", _left_out("agents", problems), host)


def _warm_up(facts: Facts, check: str, report: Mapping[str, Any], queue_list: str) -> Finding:
    settings = facts.settings
    planned = settings.warm_up
    if bool(report["warm_up"]) != (planned is not None):
        return Finding(
            check=check,
            verdict=Verdict.WRONG,
            evidence=f"the host has {'a' if report['warm_up'] else 'no'} plan, and {settings.file} "
            f"has {'one' if planned else 'none'}",
            remedy=f"Deploy what the file says: {cdk_deploy(settings)}",
        )
    if planned is None:
        return Finding(check=check, verdict=Verdict.FINE, evidence="no plan, so no daily limit")
    day, days, sent = (report[f"warm_up_{name}"] for name in ("day", "days", "sent"))
    if day > days:
        return Finding(
            check=check,
            verdict=Verdict.FINE,
            evidence=f"the plan is over after {days} days, so no day is limited; {sent} sent today",
            remedy=f"Remove [warm_up] from {settings.file} with the next deployment: while it is "
            "there sendmail warns of no message that is late.",
        )
    backlog = report["warm_up_backlog_days"]
    wrong = backlog > LONGEST_BACKLOG_DAYS
    when = f"day {day} of {days}" if day > 0 else f"the plan begins on {planned.start}"
    return Finding(
        check=check,
        verdict=Verdict.WRONG if wrong else Verdict.FINE,
        evidence=f"{when}: {sent} of {report['warm_up_allowance']} sent today, "
        f"{report.get('paced', 'an unknown number of')} messages wait"
        + (f", which takes {backlog} more day{'s' if backlog > 1 else ''}" if backlog else ""),
        remedy=f"After five days mail goes back to its sender. Send less for now, delete what need "
        f"not be sent ({queue_list}), or raise [warm_up] in {settings.file} and deploy."
        if wrong
        else "",
    )


def _left_out(key: str, problems: str) -> str:
    evidence = f"the host could not find it out ({key})"
    return f"{evidence}; it says: {problems}" if problems else evidence


def _reboot(check: str, host: MailHost, report: Mapping[str, Any]) -> Finding:
    if not report["pending_reboot"]:
        return Finding(check=check, verdict=Verdict.FINE, evidence="none")
    return Finding(
        check=check,
        verdict=Verdict.FINE,
        evidence=f"an update waits for it; the host started {report.get('boot_time', '')}".rstrip(),
        remedy=f"In a quiet hour: aws ec2 reboot-instances --instance-ids {host.instance_id}. Mail "
        "submitted meanwhile is refused, what is queued stays.",
    )


def _agents(check: str, versions: Mapping[str, str]) -> Finding:
    missing = [agent for agent in AGENTS if agent not in versions]
    evidence = ", ".join(f"{agent} {version}" for agent, version in sorted(versions.items()))
    return Finding(
        check=check,
        verdict=Verdict.WRONG if missing else Verdict.FINE,
        evidence=evidence if not missing else f"{', '.join(missing)} not installed; {evidence}",
        remedy="Terminate the instance in a quiet hour: a new one installs them."
        if missing
        else "",
    )


def _untold(check: str, evidence: str, host: MailHost) -> Finding:
    return Finding(
        check=check,
        verdict=Verdict.UNKNOWN,
        evidence=evidence,
        remedy=f"Run this again. If it stays: aws ssm start-session --target {host.instance_id}, "
        "then sudo postern-report --probe.",
    )
