"""Mail from the deployed host, as two independent receivers see it."""

import uuid
from pathlib import Path

import pytest

from lab.internet.messages import catalogue, differences
from lab.internet.verdict import faults
from lab.lab import Lab
from tests.lab.conftest import send_and_judge
from tests.lab.waiting import eventually

pytestmark = pytest.mark.lab

FIRST, SECOND = "mx.example.net", "mx.example.org"
SAMPLES = {
    sample.name: sample
    for sample in catalogue(
        sender="hello@mail.example.com",
        domains=("example.net", "example.org"),
        token=uuid.uuid4().hex[:8],
    )
}


def test_an_ordinary_mail_passes_every_check_at_both_receivers(lab: Lab) -> None:
    verdicts = send_and_judge(lab)

    assert {name: faults(verdict) for name, verdict in verdicts.items()} == {FIRST: {}, SECOND: {}}


def test_it_arrives_from_the_elastic_ip_under_the_sending_domain(lab: Lab) -> None:
    address = lab.cloud.client("ec2").describe_addresses()["Addresses"][0]["PublicIp"]

    for verdict in send_and_judge(lab).values():
        assert verdict.address == address
        domain = lab.environment.sending_domain
        assert (verdict.helo, verdict.reverse_dns, verdict.dkim_domain) == (domain,) * 3


# SPF and DKIM cover for each other in DMARC: a fault of one shows only where each is looked at.
@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (
            "spf-without-eip",
            {"spf": "fail", "dkim": "pass", "dmarc": "pass", "iprev": "pass"},
        ),
        (
            "dkim-missing",
            {"spf": "pass", "dkim": "fail", "dmarc": "pass", "iprev": "pass"},
        ),
        (
            "dkim-broken",
            {"spf": "pass", "dkim": "fail", "dmarc": "pass", "iprev": "pass"},
        ),
        (
            "ptr-missing",
            {"spf": "pass", "dkim": "pass", "dmarc": "pass", "iprev": "fail"},
        ),
        (
            "dmarc-missing",
            {"spf": "pass", "dkim": "pass", "dmarc": "none", "iprev": "pass"},
        ),
    ],
)
def test_each_fault_of_the_dns_is_seen_by_both_receivers(
    lab: Lab, fault: str, seen: dict[str, str]
) -> None:
    lab.publish([fault])
    try:
        verdicts = send_and_judge(lab)
    finally:
        lab.publish()

    said = {
        name: {check: getattr(verdict, check) for check in seen}
        for name, verdict in verdicts.items()
    }
    assert said == {FIRST: seen, SECOND: seen}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_message_that_breaks_careless_signers_arrives_intact_and_verified(
    lab: Lab, name: str
) -> None:
    sample = SAMPLES[name]

    lab.submit(sample.content, sender="hello@mail.example.com")

    for verdict in lab.wait_for(message_id=sample.message_id):
        assert faults(verdict) == {}
        assert isinstance(verdict.path, Path)
        assert differences(sample, verdict.path.read_bytes(), verdict.recipients) == []


def test_mail_waits_while_port_25_is_blocked_and_leaves_when_it_opens(lab: Lab) -> None:
    lab.block_smtp(blocked=True)
    try:
        message_id = lab.send(to=["someone@example.net"], subject="patience", text="I can wait.\n")
        eventually(lambda: "(Deferred: " in lab.run("mailq").stdout)
    finally:
        lab.block_smtp(blocked=False)

    assert lab.run("sendmail", "-qR@").returncode == 0
    (verdict,) = lab.wait_for(message_id=message_id, receivers=[FIRST])
    assert faults(verdict) == {}
