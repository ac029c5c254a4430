"""`postern queue` on the laptop, against sendmail at work: nothing lost, nothing twice."""

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lab.internet.addresses import SINKHOLE_NAME
from lab.internet.receivers.sinkhole import Transactions
from lab.lab import Lab
from tests.lab.laptop import postern, postern_json
from tests.lab.waiting import eventually

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("without_remains")]


@pytest.fixture(autouse=True)
def _an_accepting_sinkhole_and_an_empty_queue(lab: Lab) -> Iterator[None]:
    yield
    lab.sinkhole("accept")
    on_host(lab, "release", "--all")
    on_host(lab, "retry", "--all")
    eventually(lambda: on_host(lab, "list")["total"] == 0, explain=lambda: on_host(lab, "list"))


def queued(lab: Lab, *arguments: str) -> list[dict[str, Any]]:
    """The messages that wait on the host."""
    messages: list[dict[str, Any]] = postern_json(lab, "queue", "list", *arguments)[1]["messages"]
    return messages


def ids(deeds: Sequence[dict[str, Any]]) -> list[str]:
    return [deed["id"] for deed in deeds]


def defer(lab: Lab, domain: str, count: int = 1) -> list[str]:
    """Messages that wait because the sinkhole defers them; their queue ids, oldest first."""
    lab.sinkhole("defer-at-rcpt")
    for number in range(count):
        lab.send(to=[f"u{number}@{domain}"], subject="it waits", text="A word of its body.\n")

    def tried() -> list[dict[str, Any]]:
        listed = on_host(lab, "list", "--destination", domain)["messages"]
        return [one for one in listed if one["tries"]]

    eventually(lambda: len(tried()) == count)
    return ids(tried())


def on_host(lab: Lab, *arguments: str) -> dict[str, Any]:
    """What the host's own program says."""
    done = lab.run("postern-queue", *arguments, timeout=180)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def arrivals(received: Transactions, domain: str) -> Counter[str]:
    """How many messages the sinkhole took for each recipient at the domain."""
    return Counter(
        recipient
        for record in received.read()
        if record.accepted
        for recipient in record.recipients
        if recipient.endswith(f"@{domain}")
    )


def a_domain() -> str:
    return f"q{uuid.uuid4().hex[:8]}.sinkhole.example"


def test_what_waits_is_listed_with_the_receivers_words(lab: Lab) -> None:
    domain = a_domain()
    first, _ = defer(lab, domain, 2)

    status, listed = postern_json(lab, "queue", "list", "--destination", domain)
    assert status == 0
    (group,) = listed["groups"]
    assert group["destination"] == domain
    assert group["reason"] == "450 4.2.1 Mailbox busy"
    assert group["messages"] == 2
    assert listed["messages"][0]["host"] == lab.instance_ids[0]

    shown = postern(lab, "queue", "show", first)
    assert shown.returncode == 0
    assert "Subject: it waits" in shown.stdout
    assert "DKIM-Signature" in shown.stdout
    assert "A word of its body" not in shown.stdout
    assert postern(lab, "queue", "show", "AAAAAAAA000001").returncode == 1


def test_a_retry_does_not_wait_for_the_messages_turn(lab: Lab) -> None:
    domain = a_domain()
    (waiting,) = defer(lab, domain)
    lab.sinkhole("accept")
    time.sleep(16)  # a queue run passes it over: it was tried within the last five minutes
    assert ids(queued(lab, "--destination", domain)) == [waiting]

    status, done = postern_json(lab, "queue", "retry", "--all")

    assert status == 0
    assert waiting in ids(done["done"])
    assert queued(lab, "--destination", domain) == []


def test_a_retry_tells_what_the_receiver_said_this_time(lab: Lab) -> None:
    (waiting,) = defer(lab, a_domain())

    status, done = postern_json(lab, "queue", "retry", waiting)

    assert status == 0
    (deed,) = done["done"]
    assert deed["outcome"] == "tried, and waits: 450 4.2.1 Mailbox busy"


def test_what_is_held_is_not_tried_until_it_is_released(lab: Lab) -> None:
    domain = a_domain()
    held, other = defer(lab, domain, 2)

    assert postern(lab, "queue", "hold", held).returncode == 0
    lab.sinkhole("accept")
    assert postern(lab, "queue", "retry", held).returncode == 1
    assert postern(lab, "queue", "retry", "--destination", domain).returncode == 0
    assert [(one["id"], one["state"]) for one in queued(lab, "--destination", domain)] == [
        (held, "held")
    ]
    assert postern(lab, "queue", "release", held, other).returncode == 1  # one is gone
    assert postern(lab, "queue", "retry", held).returncode == 0
    assert queued(lab, "--destination", domain) == []


def test_the_submission_queue_is_worked_on_too(lab: Lab) -> None:
    domain = a_domain()
    lab.run("systemctl", "stop", "sendmail.service")
    try:
        lab.send(to=[f"a@{domain}"], subject="to the submission queue", text="x\n")
        (waiting,) = queued(lab, "--destination", domain)
        assert waiting["queue"] == "mqueue-client"
        assert postern(lab, "queue", "hold", waiting["id"]).returncode == 0
    finally:
        lab.run("systemctl", "start", "sendmail.service")
    assert queued(lab, "--destination", domain)[0]["state"] == "held"
    assert postern(lab, "queue", "release", waiting["id"]).returncode == 0
    eventually(lambda: queued(lab, "--destination", domain) == [])


def test_what_is_being_delivered_is_not_deleted(lab: Lab) -> None:
    """On the host itself: the laptop may take longer than the delivery."""
    domain = a_domain()
    (waiting,) = defer(lab, domain)
    received = Transactions(lab.places.received / SINKHOLE_NAME)
    lab.sinkhole("accept", delay_seconds=30)
    on_host(lab, "retry", waiting, "--wait=0")
    eventually(lambda: on_host(lab, "list", waiting)["messages"][0]["being_delivered"])

    deleted = on_host(lab, "delete", waiting)
    held = on_host(lab, "hold", waiting)

    for deeds in (deleted, held):
        assert deeds["done"] == []
        assert deeds["not_done"][0]["why"] == "it is being delivered right now"
    eventually(lambda: on_host(lab, "list", waiting)["total"] == 0)
    assert arrivals(received, domain) == {f"u0@{domain}": 1}


def test_nothing_is_lost_or_sent_twice_while_all_is_done_at_once(lab: Lab) -> None:
    """Deliveries, retries, holds, releases and deletions of the same messages, side by side."""
    domain = a_domain()
    count = 40
    defer(lab, domain, count)
    listed = on_host(lab, "list", "--destination", domain)["messages"]
    recipient = {one["id"]: one["recipients"][0] for one in listed}
    assert len(recipient) == count
    received = Transactions(lab.places.received / SINKHOLE_NAME)
    lab.sinkhole("accept", delay_seconds=0.5)

    def several(action: str) -> None:
        for _ in range(5):
            on_host(lab, action, "--destination", domain, "--wait=1")

    def delete(one: str) -> list[str]:
        return ids(on_host(lab, "delete", one)["done"])

    with ThreadPoolExecutor() as executor:
        others = [executor.submit(several, one) for one in ("retry", "hold", "release", "retry")]
        deletions = [executor.submit(delete, one) for one in list(recipient)[::3]]
    for other in others:
        other.result()
    deleted = {one for deletion in deletions for one in deletion.result()}
    on_host(lab, "release", "--all")
    on_host(lab, "retry", "--all")
    eventually(lambda: on_host(lab, "list", "--destination", domain)["total"] == 0)

    expected = {to for one, to in recipient.items() if one not in deleted}
    assert len(expected) < count
    assert arrivals(received, domain) == dict.fromkeys(expected, 1)
