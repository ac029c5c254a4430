"""The workloads are those that the figures are published for, and a trial run is a part of them."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from bench.names import MANY, recipient_domain, zone_files
from bench.options import Options
from bench.workloads import QUEUES, WORKLOADS


def options(*, scale: float) -> Options:
    return Options(
        contenders=("postern",),
        workload_names=tuple(WORKLOADS),
        queues=QUEUES,
        runs=5,
        queue_runs=1,
        bounds=True,
        add=False,
        scale=scale,
        json=Path("results.json"),
    )


def test_the_streams_are_as_published() -> None:
    streams = [w for w in WORKLOADS.values() if w.messages > 1]
    assert {(w.kib, w.messages) for w in streams} == {(10, 3000), (50, 1000)}
    assert {w.domains for w in streams} == {1, 200}
    assert {w.delay for w in streams} == {0, 0.05, 0.2}
    assert {w.submission for w in streams} == {"smtp", "sendmail"}
    assert {w.sessions for w in streams} == {20}
    assert QUEUES == (1000, 5000, 20000)


def test_a_message_to_a_slow_receiver_takes_a_second() -> None:
    slow = WORKLOADS["many-200ms"]
    # The connection, EHLO, the envelope, the message.
    assert 4 * slow.delay + slow.hold == pytest.approx(1)


def test_a_trial_run_sends_fewer_messages_and_a_single_one_stays_single() -> None:
    sent = {w.name: w.messages for w in options(scale=0.02).workloads}
    assert sent["many-50ms"] == 60
    assert sent["50kb-50ms"] == 20
    assert sent["single"] == 1
    assert [w.messages for w in options(scale=1).workloads] == [
        w.messages for w in WORKLOADS.values()
    ]


def test_options_reach_the_bench_as_they_were_given() -> None:
    given = options(scale=0.5)
    assert Options.from_json(given.to_json()) == given


def test_every_recipient_domain_has_a_mail_server_in_the_dns() -> None:
    zone = zone_files(sending_domain="mail.example.com", sender=IPv4Address("203.0.113.10"))
    records = zone["bench.example."].splitlines()
    for domains in (1, MANY):
        for number in range(2 * MANY):
            name = recipient_domain(number, domains=domains)
            assert f"{name}. 3600 IN MX 10 mx.{name}." in records
            assert any(line.startswith(f"mx.{name}. 3600 IN A ") for line in records)
    assert "mail.example.com. 3600 IN A 203.0.113.10" in zone["example.com."]
