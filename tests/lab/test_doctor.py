"""`postern doctor` against the lab: fine as deployed, and each harm is seen for what it is.

A test compares with what was found before its harm was done: other tests may have left their mark,
in the state of an alarm, say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab.lab import Lab
from ops.doctor.blocklists import BLOCKLISTS
from ops.verdicts import EXIT_STATUS, Finding, Verdict, overall
from tests.lab.laptop import postern

pytestmark = pytest.mark.lab

WRONG, UNKNOWN = Verdict.WRONG, Verdict.UNKNOWN

# Nothing in the emulated AWS judges an alarm on metric math, and it judges the others only when
# somebody puts a metric's data.
LACKING = {"Alarms"}


def doctor(lab: Lab) -> dict[str, Finding]:
    """What it finds on the operator's laptop, by the check; "host: " begins those of the host."""
    document = json.loads(run(lab))
    (instance,) = lab.instance_ids
    (zone,) = lab.environment.availability_zones
    return {
        found["check"].replace(f"{zone} {instance}: ", "host: "): Finding(
            **{**found, "verdict": Verdict(found["verdict"])}
        )
        for found in document["findings"]
    }


def run(lab: Lab) -> str:
    """What it prints as JSON, after its exit status was found to be that of its verdict."""
    done = postern(lab, "doctor", "--json", timeout=120)
    document = json.loads(done.stdout)
    assert done.returncode == EXIT_STATUS[Verdict(document["verdict"])], done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def address(lab: Lab) -> str:
    """The Elastic IP."""
    (address,) = lab.cloud.client("ec2").describe_addresses()["Addresses"]
    return str(address["PublicIp"])


@pytest.fixture(scope="module")
def before(
    lab: Lab,
    without_remains: None,  # noqa: ARG001 - before the first look
) -> dict[str, Finding]:
    return doctor(lab)


@pytest.fixture
def publish(lab: Lab) -> Iterator[None]:
    yield
    lab.publish()


def changed(before: dict[str, Finding], after: dict[str, Finding]) -> dict[str, Verdict]:
    """The checks that are worse than before, alarms apart: they may ring of themselves."""
    return {
        check: finding.verdict
        for check, finding in after.items()
        if finding.verdict is not Verdict.FINE
        and not check.startswith("Alarm")
        and (check not in before or before[check].verdict is not finding.verdict)
    }


def test_as_deployed_all_is_fine_but_what_the_lab_lacks(before: dict[str, Finding]) -> None:
    not_fine = {
        check: f"{finding.verdict}: {finding.evidence}"
        for check, finding in before.items()
        if finding.verdict is not Verdict.FINE and not check.startswith("Alarm ")
    }
    assert not_fine.keys() <= LACKING, not_fine
    assert overall(before.values()) in (UNKNOWN, WRONG)  # never fine while something is not told
    assert "host: port 25" in before


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("spf-without-eip", {"SPF record": WRONG, "SPF of {address}": WRONG}),
        ("spf-twice", {"SPF record": WRONG, "SPF rules": WRONG}),
        ("dkim-missing", {"DKIM record s1": WRONG, "DKIM key s1": WRONG}),
        ("dkim-broken", {"DKIM record s1": WRONG}),
        ("dmarc-missing", {"DMARC record": WRONG, "DMARC rules": WRONG}),
        ("ptr-missing", {"Reverse DNS of {address}": WRONG}),
        ("ptr-other-name", {"Reverse DNS of {address}": WRONG}),
        ("dnsbl-listed", {f"{{address}} at {one.name}": WRONG for one in BLOCKLISTS}),
        ("dnsbl-refuses", {f"{{address}} at {one.name}": UNKNOWN for one in BLOCKLISTS}),
    ],
)
@pytest.mark.usefixtures("publish")
def test_a_fault_in_the_dns_is_seen_and_nothing_else(
    lab: Lab, before: dict[str, Finding], address: str, fault: str, found: dict[str, Verdict]
) -> None:
    lab.publish([fault])
    expected = {check.format(address=address): verdict for check, verdict in found.items()}
    assert changed(before, doctor(lab)) == expected


@pytest.mark.usefixtures("publish")
def test_a_server_that_lags_behind_is_named(lab: Lab, before: dict[str, Finding]) -> None:
    lab.publish(["second-server-lags", "dmarc-missing"])
    after = doctor(lab)
    assert changed(before, after)["DMARC record"] is WRONG
    evidence = after["DMARC record"].evidence
    assert "(198.51.100.53): none" in evidence
    assert "(198.51.100.54): none" not in evidence


@pytest.mark.usefixtures("publish")
def test_without_dns_nothing_can_be_told(lab: Lab) -> None:
    lab.publish(["servfail"])
    document = json.loads(run(lab))
    assert document["verdict"] == UNKNOWN
    assert "GetCallerIdentity" in document["error"]


def test_a_port_25_that_aws_blocks_is_seen(lab: Lab, before: dict[str, Finding]) -> None:
    lab.block_smtp(blocked=True)
    try:
        after = doctor(lab)
    finally:
        lab.block_smtp(blocked=False)
    assert changed(before, after) == {"host: port 25": WRONG, "host: TLS at receivers": UNKNOWN}
    assert "port25-request --environment lab" in after["host: port 25"].remedy
    assert changed(before, doctor(lab)) == {}


def test_a_signer_that_is_stopped_is_seen(lab: Lab, before: dict[str, Finding]) -> None:
    assert lab.run("systemctl", "stop", "opendkim").returncode == 0
    try:
        after = doctor(lab)
    finally:
        # What needs it stopped with it.
        lab.run("systemctl", "start", "opendkim", "sendmail", "sendmail-client")
    assert changed(before, after) == {"host: units": WRONG}
    assert "opendkim" in after["host: units"].evidence
    assert changed(before, doctor(lab)) == {}


def test_an_agent_that_is_stopped_leaves_the_host_unasked(
    lab: Lab, before: dict[str, Finding]
) -> None:
    assert lab.run("systemctl", "stop", "amazon-ssm-agent").returncode == 0
    try:
        after = doctor(lab)
    finally:
        lab.run("systemctl", "start", "amazon-ssm-agent")
    assert changed(before, after) == {"host: agent": WRONG}


def test_an_alarm_is_a_finding_with_its_runbook(lab: Lab) -> None:
    cloudwatch = lab.cloud.client("cloudwatch")
    name = f"postern/{lab.environment.name}/queue-age"

    def state(value: str) -> None:
        cloudwatch.set_alarm_state(AlarmName=name, StateValue=value, StateReason="said the test")

    (alarm,) = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
    state("ALARM")
    try:
        finding = doctor(lab)[f"Alarm {name}"]
    finally:
        state(alarm["StateValue"])
    assert (finding.verdict, finding.evidence) == (WRONG, "said the test")
    assert "docs/runbooks/queue-age.md" in finding.remedy
