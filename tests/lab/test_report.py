"""What `postern-report` says, against what is so."""

import json
from typing import Any

import pytest

from lab.internet.addresses import SINKHOLE_DOMAIN
from lab.lab import Lab
from tests.lab.waiting import eventually

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("without_remains")]

LOG = "/var/log/postern/report.log"


def report(lab: Lab, *options: str, status: int = 0) -> dict[str, Any]:
    done = lab.run("postern-report", *options, timeout=120)
    assert done.returncode == status, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def last_line(lab: Lab) -> dict[str, Any]:
    """The report's line of a moment ago, made by its unit."""
    started = lab.run("systemctl", "start", "postern-report.service")
    assert started.returncode == 0, lab.run("journalctl", "--unit=postern-report", "-n20").stdout
    found: dict[str, Any] = json.loads(lab.run("tail", "--lines=1", LOG).stdout)
    return found


def test_it_knows_the_host(lab: Lab) -> None:
    found = last_line(lab)

    assert found["report"] == 1
    assert [found["instance_id"]] == lab.instance_ids
    assert found["zone"].startswith(lab.environment.region)
    assert found["dead_unit_names"] == []
    assert found["dead_units"] == found["pending_reboot"] == found["set_aside"] == 0
    assert 0 <= found["dkim_key_age_days"] < 1
    assert found["agents"].keys() == {"amazon-ssm-agent", "amazon-cloudwatch-agent"}
    installed = lab.run("dpkg-query", "--show", "--showformat=${Version}", "opendkim").stdout
    assert found["packages"]["opendkim"] == installed
    for disk, path in (("queue_disk_percent", "/var/spool/queue"), ("root_disk_percent", "/")):
        used = lab.run("df", "--output=pcent", path).stdout.split()[-1].rstrip("%")
        assert found[disk] == pytest.approx(float(used), abs=1.1)


def test_a_line_comes_each_minute_that_only_adm_and_root_read(lab: Lab) -> None:
    def lines() -> int:
        return int(lab.run("bash", "-c", f"cat {LOG} | wc --lines").stdout)

    before = lines()
    eventually(lambda: lines() > before)

    assert lab.run("stat", "--format=%A %U:%G", LOG).stdout.strip() == "-rw-r----- root:adm"
    directory = lab.run("stat", "--format=%A %U:%G", "/var/log/postern").stdout.strip()
    assert directory == "drwxr-x--- root:adm"


def test_it_counts_what_waits_and_how_long(lab: Lab) -> None:
    before = report(lab)
    assert (before["queue_depth"], before["oldest_age_seconds"]) == (0, 0)
    lab.sinkhole("defer-at-rcpt")
    try:
        for n in range(3):
            lab.send(to=[f"waiting-{n}@{SINKHOLE_DOMAIN}"], subject="waiting", text="x\n")
        eventually(lambda: report(lab)["queue_depth"] == 3)
        eventually(lambda: report(lab)["oldest_age_seconds"] >= 3)

        # Trying does not make a message younger: sendmail writes its file anew.
        lab.run("sendmail-mta", "-q", "-OMinQueueAge=0", "-OMaxQueueAge=0")
        assert report(lab)["oldest_age_seconds"] >= 3

        lab.run("sendmail-mta", "-Qtest", "-qR@")
        quarantined = report(lab)
        lab.run("sendmail-mta", "-qQ", "-Q", "-qR@")  # out of it again
        assert (quarantined["queue_depth"], quarantined["held"]) == (0, 3)
        assert report(lab)["held"] == 0
    finally:
        lab.sinkhole("accept")
        lab.run("sendmail-mta", "-qQ", "-Q", "-qR@")
    eventually(lambda: lab.run("sendmail", "-qR@") and report(lab)["queue_depth"] == 0)


def test_a_stopped_unit_is_dead(lab: Lab) -> None:
    lab.run("systemctl", "stop", "sendmail-client")
    try:
        dead = last_line(lab)
    finally:
        lab.run("systemctl", "start", "sendmail-client")

    assert (dead["dead_units"], dead["dead_unit_names"]) == (1, ["sendmail-client.service"])
    assert last_line(lab)["dead_units"] == 0


def test_a_packet_filter_that_is_gone_is_dead(lab: Lab) -> None:
    lab.run("nft", "delete", "table", "ip", "postern")
    try:
        dead = last_line(lab)
    finally:
        lab.run("nft", "--file", "/etc/postern/packet-filter.nft")

    assert dead["dead_unit_names"] == ["packet-filter"]


def test_mail_refused_for_want_of_the_signer_is_counted_in_the_next_line_only(lab: Lab) -> None:
    last_line(lab)
    told = int(lab.run("bash", "-c", f"cat {LOG} | wc --lines").stdout)

    def counted() -> int:
        """In the lines since then: the minute's own report may come in between."""
        last_line(lab)
        lines = lab.run("tail", f"--lines=+{told + 1}", LOG).stdout.splitlines()
        return sum(json.loads(line)["signer_failures"] for line in lines)

    lab.run("systemctl", "stop", "opendkim", "sendmail-client")
    try:
        for _ in range(2):
            lab.send(to=["someone@example.net"], subject="unsigned?", text="Never.\n")
        eventually(lambda: counted() == 2, explain=counted)
    finally:
        lab.run("systemctl", "start", "opendkim", "sendmail-client")
    assert last_line(lab)["signer_failures"] == 0
    eventually(lambda: report(lab)["queue_depth"] == 0)


def test_port_25_is_open_when_a_receiver_answers_and_blocked_when_none_does(lab: Lab) -> None:
    opened = report(lab, "--probe")
    assert opened["port25_open"] == 1
    assert ": 220 " in opened["port25_checked"]

    lab.block_smtp(blocked=True)
    try:
        blocked = report(lab, "--probe")
    finally:
        lab.block_smtp(blocked=False)
    assert blocked["port25_open"] == 0
    assert blocked["port25_checked"].count("timed out") == 3

    assert report(lab, "--probe")["port25_open"] == 1


def test_without_dns_nothing_is_said_of_port_25(lab: Lab) -> None:
    lab.run("systemctl", "stop", "systemd-resolved")
    try:
        unknown = report(lab, "--probe")
    finally:
        lab.run("systemctl", "start", "systemd-resolved")

    assert "port25_open" not in unknown
    assert "not looked up" in unknown["port25_checked"]
    assert report(lab, "--probe")["port25_open"] == 1


def test_a_queue_that_is_not_there_is_not_called_empty(lab: Lab) -> None:
    lab.run("systemctl", "stop", "sendmail", "sendmail-client", "var-spool-queue.mount")
    try:
        found = report(lab, status=1)
    finally:
        lab.run("systemctl", "start", "var-spool-queue.mount", "sendmail", "sendmail-client")

    assert not found.keys() & {"queue_depth", "oldest_age_seconds", "queue_disk_percent"}
    assert "var-spool-queue.mount" in found["dead_unit_names"]
    assert report(lab)["queue_depth"] == 0
