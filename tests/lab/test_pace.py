"""Considerate to receivers: sendmail asks postern-pace, and mail waits and leaves as it says."""

import json
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from lab.internet.addresses import SINKHOLE_NAME
from lab.internet.receivers.sinkhole import Transaction, Transactions
from lab.lab import Lab
from tests.lab.waiting import eventually

pytestmark = pytest.mark.lab

PROVIDER = """
[lab]
domains = ["paced.sinkhole.example"]
connections = 2
messages_per_connection = 4
messages_per_minute = 300
"""
A_DAY = 86_400


def sh(lab: Lab, script: str) -> str:
    done = lab.run("bash", "-euo", "pipefail", "-c", script, timeout=180)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def paced(lab: Lab) -> Iterator[Lab]:
    """The lab's host with a provider more; afterwards it is as it was deployed."""
    sh(
        lab,
        f"cp --preserve /etc/postern/settings /etc/postern/providers.toml /root; "
        f"cat >>/etc/postern/providers.toml <<'END'\n{PROVIDER}END\npostern-setup",
    )
    yield lab
    lab.sinkhole("accept")
    sh(
        lab,
        "cp /root/settings /root/providers.toml /etc/postern; postern-setup; "
        "systemctl stop postern-pace; rm -f /var/spool/queue/pace/*; systemctl start postern-pace; "
        "postern-queue delete --all",
    )


def send(lab: Lab, count: int, domain: str) -> list[str]:
    """Submits messages all at once; their message ids."""
    batch = f"{uuid.uuid4()}@{lab.environment.sending_domain}"
    sh(
        lab,
        f"for n in {{1..{count}}}; do printf 'To: u%s@{domain}\\nSubject: pace\\n"
        f"Message-ID: <%s.{batch}>\\n\\nx\\n' $n $n | sendmail -t & done; wait",
    )
    return [f"<{n}.{batch}>" for n in range(1, count + 1)]


class Sinkhole:
    """What arrived there since."""

    def __init__(self, lab: Lab) -> None:
        self._transactions = Transactions(lab.places.received / SINKHOLE_NAME)
        self._read: list[Transaction] = []

    def of(self, message_ids: list[str]) -> list[Transaction]:
        self._read += self._transactions.read()
        return [one for one in self._read if one.message_id in message_ids and one.accepted]


def waiting(lab: Lab) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = json.loads(sh(lab, "postern-queue list"))["groups"]
    return groups


def test_a_provider_gets_its_messages_a_connection_and_others_are_not_touched(paced: Lab) -> None:
    sinkhole = Sinkhole(paced)
    paced.sinkhole("accept", delay_seconds=1)
    named = send(paced, 16, "paced.sinkhole.example")
    others = send(paced, 4, "free.sinkhole.example")

    eventually(lambda: len(sinkhole.of(others)) == 4)
    eventually(lambda: len(sinkhole.of(named)) == 16, explain=lambda: waiting(paced))

    connections = Counter(one.port for one in sinkhole.of(named))
    # Two connections took the first messages as they came; the others waited for their turn.
    assert max(connections.values()) in (2, 3, 4)
    assert len(connections) < 16
    assert set(Counter(one.port for one in sinkhole.of(others)).values()) == {1}
    answers = sorted(one.time for one in sinkhole.of(named))
    # Each answer takes a second, and two connections never gave more than two in one.
    assert all(later - first > 0.8 for first, later in zip(answers, answers[2:], strict=False))

    outcomes = sh(paced, "cat /var/log/postern/mail.log").splitlines()
    told = [json.loads(line) for line in outcomes if "paced.sinkhole.example" in line]
    counted = Counter(line["outcome"] for line in told if "outcome" in line)
    assert counted["sent"] == 16
    assert counted["paced"] >= 1
    assert counted["deferred"] == 0


def test_its_mailer_is_the_ordinary_one_with_a_limit(lab: Lab) -> None:
    configuration = sh(lab, "cat /etc/mail/sendmail.cf").replace("\n\t", " ")
    mailers = {
        name: re.sub(r"\s+", " ", rest)
        for name, rest in re.findall(r"^M(\w+),\s*(.*)$", configuration, re.M)
    }
    assert mailers["esmtp_yahoo"].replace(" m=20,", "") == mailers["esmtp"]


def test_beyond_the_days_messages_mail_waits_and_leaves_the_next_day(paced: Lab) -> None:
    sinkhole = Sinkhole(paced)
    today = datetime.now(UTC).date()
    sh(paced, f"echo WARM_UP={today}:2,50 >>/etc/postern/settings; postern-setup")
    sent = send(paced, 3, "free.sinkhole.example")

    eventually(lambda: len(sinkhole.of(sent)) == 2)
    (group,) = eventually(lambda: [g for g in waiting(paced) if g["reason"].startswith("Paced")])
    assert group["reason"] == "Paced: the warm-up plan allows no more today"
    assert group["messages"] == 1

    report = eventually(lambda: _with_a_paced_message(paced))
    assert (report["warm_up_day"], report["warm_up_allowance"], report["warm_up_sent"]) == (1, 2, 2)
    assert report["queue_depth"] == 0

    # While the service is away a plan is kept all the same.
    sh(paced, "systemctl stop postern-pace")
    late = send(paced, 1, "free.sinkhole.example")
    eventually(lambda: any("postern-pace does not answer" in g["reason"] for g in waiting(paced)))

    paced.set_clock(offset_seconds=A_DAY)
    try:
        eventually(lambda: len(sinkhole.of([*sent, *late])) == 4, explain=lambda: waiting(paced))
    finally:
        paced.set_clock(offset_seconds=0)


def _with_a_paced_message(lab: Lab) -> dict[str, Any]:
    """The host's report; empty when it has none."""
    report: dict[str, Any] = json.loads(sh(lab, "postern-report"))
    return report if report["paced"] else {}
