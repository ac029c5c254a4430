"""How this deployment keeps unwanted mail from leaving: each claim looked up where it is deployed.

A claim goes into the request to AWS only when its finding is fine, with the values that were seen.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ops import hosted_zone, run_command
from ops.command_lines import cdk_deploy
from ops.deployment import CannotTell, Deployment, NotDeployed
from ops.dns_answers import zone_file_text
from ops.verdicts import Finding, Verdict

# The length of a 2048-bit RSA public key as DKIM publishes it (SubjectPublicKeyInfo, RFC 5280).
_RSA_2048_BYTES = 294
# What a host is asked for, of its settings and of the configuration that sendmail really has.
_HOST_FILES = ("/etc/mail/sendmail.cf", "/etc/postern/settings")
_HOST_LINES = (
    "^O DaemonPortOptions",
    "^Xopendkim",
    "550 Envelope sender must be an address in",
    "^POSTMASTER=",
)
_SUPPRESSIONS = "/usr/local/sbin/postern-suppressions"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What was found about one claim; `values` fill in its text, if it is fine."""

    name: str
    finding: Finding
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return self.finding.verdict is Verdict.FINE


class _Untrue(Exception):
    """A claim that is not so; the text is the evidence."""


# What a check returns: the evidence, and the values for the text.
_Seen = tuple[str, dict[str, str]]


def claims(deployment: Deployment, addresses: Sequence[str]) -> list[Claim]:
    """Every claim, in the order of the request; `addresses` are the deployed Elastic IPs."""
    hosts = _Hosts(deployment)
    checks: list[tuple[str, str, Callable[[], _Seen]]] = [
        ("no-inbound", "nothing comes in", lambda: _no_inbound(deployment)),
        ("own-senders", "senders of the sending domain only", lambda: _own_senders(hosts)),
        ("spf", "SPF record", lambda: _spf(deployment, addresses)),
        ("dkim", "DKIM record", lambda: _dkim(deployment)),
        ("signed", "nothing leaves unsigned", lambda: _signed(hosts)),
        ("dmarc", "DMARC record", lambda: _dmarc(deployment)),
        ("bounces", "bounces reach the postmaster", lambda: _bounces(hosts)),
        ("suppressions", "suppression list", lambda: _suppressions(deployment)),
        ("alarms", "bounce-rate alarms", lambda: _alarms(deployment)),
    ]
    return [_claim(deployment, *check) for check in checks]


def _claim(deployment: Deployment, name: str, check: str, look: Callable[[], _Seen]) -> Claim:
    try:
        evidence, values = look()
    except _Untrue as untrue:
        verdict, evidence, values = Verdict.WRONG, str(untrue), {}
        remedy = (
            "The request does not say it. Deploy what is missing "
            f"({cdk_deploy(deployment.settings)}), then write the request again."
        )
    except NotDeployed as error:
        verdict, evidence, values = Verdict.UNKNOWN, str(error), {}
        remedy = (
            "The request does not say it. Deploy the rest first, which needs no open port 25 (mail "
            "waits in the queue), then write the request again: it says more."
        )
    except CannotTell as error:
        verdict, evidence, values = Verdict.UNKNOWN, str(error), {}
        remedy = "The request does not say it. Write the request again when this can be asked."
    else:
        verdict, remedy = Verdict.FINE, ""
    finding = Finding(check=check, verdict=verdict, evidence=evidence, remedy=remedy)
    return Claim(name=name, finding=finding, values=values)


def _the_record(deployment: Deployment, name: str) -> str:
    held = hosted_zone.txt_values(deployment, name)
    values = [zone_file_text(value, "TXT") for value in held]
    if len(values) != 1:
        raise _Untrue(f"{name} has {len(values)} TXT records: {'; '.join(values) or 'none'}")
    return values[0]


# The checks: each returns what it saw, or raises _Untrue, NotDeployed or CannotTell


def _no_inbound(deployment: Deployment) -> _Seen:
    groups = [
        resource.physical_id
        for resource in deployment.stack("MailHosts").of_type("AWS::EC2::SecurityGroup")
    ]
    if not groups:  # AWS, asked for none, would give every group of the account
        raise _Untrue("the mail hosts have no security group of their own")
    answer = deployment.call("ec2", "describe_security_groups", GroupIds=groups)
    for group in answer["SecurityGroups"]:
        if group["IpPermissions"]:
            raise _Untrue(f"{group['GroupId']} lets in {group['IpPermissions']}")
    return f"{', '.join(groups)} has no inbound rule", {}


def _own_senders(hosts: _Hosts) -> _Seen:
    for instance_id, lines in hosts.configurations().items():
        daemons = [line for line in lines if line.startswith("O DaemonPortOptions")]
        if not daemons or not all("Addr=127.0.0.1," in line for line in daemons):
            raise _Untrue(f"sendmail on {instance_id} listens elsewhere: {'; '.join(daemons)}")
        if not any("Envelope sender must be an address in" in line for line in lines):
            raise _Untrue(f"sendmail on {instance_id} takes any envelope sender")
    domain = hosts.settings.sending_domain
    evidence = f"every host's sendmail listens on 127.0.0.1 and refuses senders outside {domain}"
    return evidence, {"domain": domain}


def _signed(hosts: _Hosts) -> _Seen:
    for instance_id, lines in hosts.configurations().items():
        if not any(line.startswith("Xopendkim,") and ", F=T," in line for line in lines):
            raise _Untrue(f"sendmail on {instance_id} does not wait for the signer")
    return "every host's sendmail keeps what its signer has not signed", {}


def _spf(deployment: Deployment, addresses: Sequence[str]) -> _Seen:
    record = _the_record(deployment, deployment.settings.sending_domain)
    words = record.split()
    if (words[:1], words[-1:]) != (["v=spf1"], ["-all"]):
        raise _Untrue(f"{record} does not end with -all")
    if sorted(words[1:-1]) != sorted(f"ip4:{address}" for address in addresses):
        raise _Untrue(f"{record} names other addresses than {', '.join(addresses)}")
    return record, {"record": record}


def _dkim(deployment: Deployment) -> _Seen:
    settings = deployment.settings
    name = f"{settings.dkim.signing}._domainkey.{settings.sending_domain}"
    record = _the_record(deployment, name)
    tags = dict(re.findall(r"(\w+)\s*=\s*([^;\s]+)", record))
    try:
        key = base64.b64decode(tags.get("p", ""), validate=True)
    except binascii.Error as error:
        raise _Untrue(f"{name} holds no key: {error}") from None
    if len(key) < _RSA_2048_BYTES:
        raise _Untrue(f"the key of {name} has {len(key)} bytes, 2048-bit RSA {_RSA_2048_BYTES}")
    return f"{name} holds a key of 2048 bits or more", {"name": name}


def _dmarc(deployment: Deployment) -> _Seen:
    name = f"_dmarc.{deployment.settings.sending_domain}"
    record = _the_record(deployment, name)
    tags = dict(re.findall(r"(\w+)\s*=\s*([^;\s]+)", record))
    if tags.get("v") != "DMARC1" or "p" not in tags:
        raise _Untrue(f"{record} is no DMARC record with a policy")
    if not tags.get("rua", "").startswith("mailto:"):
        raise _Untrue(f"{record} asks for no reports")
    return record, {"policy": tags["p"], "reports": tags["rua"].removeprefix("mailto:")}


def _bounces(hosts: _Hosts) -> _Seen:
    postmaster = hosts.settings.postmaster
    for instance_id, lines in hosts.configurations().items():
        if f"POSTMASTER={postmaster}" not in lines:
            raise _Untrue(f"{instance_id} does not forward them to {postmaster}")
    return f"every host forwards them to {postmaster}", {"postmaster": postmaster}


def _suppressions(deployment: Deployment) -> _Seen:
    days = set()
    for host in deployment.hosts():
        answer = run_command.run_json(deployment, host.instance_id, [_SUPPRESSIONS, "list"])
        if not isinstance(answer.get("days"), int):
            raise CannotTell(f"{_SUPPRESSIONS} on {host.instance_id} does not say for how long")
        days.add(answer["days"])
    if len(days) != 1:
        raise _Untrue(f"the hosts suppress for {sorted(days)} days")
    (number,) = days
    if not number:
        raise _Untrue("the hosts suppress nobody of themselves ([suppressions] days = 0)")
    return f"a recipient that does not exist is suppressed for {number} days", {"days": str(number)}


def _alarms(deployment: Deployment) -> _Seen:
    names = [
        resource.physical_id
        for resource in deployment.stack("Monitoring").of_type("AWS::CloudWatch::Alarm")
        if "bounce-rate-" in resource.physical_id
    ]
    if not names:
        raise _Untrue("the Monitoring stack has no alarm on the bounce rate")
    answer = deployment.call("cloudwatch", "describe_alarms", AlarmNames=names)
    told = [a for a in answer["MetricAlarms"] if a["ActionsEnabled"] and a["AlarmActions"]]
    levels = {alarm["AlarmName"].rpartition("-")[2]: alarm["Threshold"] for alarm in told}
    if not {"warning", "critical"} <= levels.keys():
        raise _Untrue(f"of {', '.join(names)}, not both exist and tell somebody")
    values = {level: f"{threshold:g}" for level, threshold in levels.items()}
    return f"{', '.join(names)} at {values['warning']} and {values['critical']} %", values


class _Hosts:
    """The mail hosts, asked once for what several claims are about."""

    def __init__(self, deployment: Deployment) -> None:
        self.settings = deployment.settings
        self._deployment = deployment
        self._known: dict[str, list[str]] = {}

    def configurations(self) -> dict[str, list[str]]:
        """Each host's lines that match `_HOST_LINES`, by instance id; raises CannotTell."""
        if not self._known:
            patterns = [argument for line in _HOST_LINES for argument in ("-e", line)]
            argv = ["grep", "-h", *patterns, *_HOST_FILES]
            known = {}
            for host in self._deployment.hosts():
                output = run_command.run(self._deployment, host.instance_id, argv)
                if output.exit_status > 1:
                    said = output.stderr.strip()
                    raise CannotTell(f"{host.instance_id} could not be asked: {said}")
                known[host.instance_id] = output.stdout.splitlines()
            self._known = known  # all of them: a claim is about every host
        return self._known
