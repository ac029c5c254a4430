"""The host that the deployed user-data made."""

import re
import subprocess
import time

import pytest

from lab.control import LabError
from lab.internet.verdict import faults
from lab.lab import Lab
from tests.lab.conftest import RECIPIENTS, send_and_judge
from tests.lab.waiting import eventually

pytestmark = pytest.mark.lab

STATE = """
set -e
find /etc /usr/local /var/spool/queue -xdev -type f ! -path '*/qf*' ! -path '*/df*' -print0 |
    sort -z | xargs -0 sha256sum
systemctl show --property=Id,MainPID,ActiveEnterTimestampMonotonic \
    sendmail.service sendmail-client.service opendkim.service dkim-key.service var-spool-queue.mount
"""


def test_the_one_name_is_everywhere(lab: Lab) -> None:
    domain = lab.environment.sending_domain

    assert lab.run("hostnamectl", "hostname").stdout.strip() == domain
    assert lab.run("hostname", "--fqdn").stdout.strip() == domain
    assert domain in lab.run("getent", "hosts", domain).stdout.split()
    assert lab.run("cat", "/etc/mail/local-host-names").stdout.split() == [domain]
    access = lab.run("makemap", "-u", "hash", "/etc/mail/access").stdout
    assert re.search(rf"^connect:{re.escape(domain)}\s+RELAY$", access, re.M | re.I)


def test_cloud_init_knows_every_word_of_its_configuration(lab: Lab) -> None:
    checked = lab.run("cloud-init", "schema", "--system")

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "deprecat" not in (checked.stdout + checked.stderr).lower()


def test_running_setup_twice_changes_nothing(lab: Lab) -> None:
    # Other tests had recipients suppressed: sendmail is restarted when a file of its own is newer.
    first = lab.run("postern-setup", timeout=300)
    assert first.returncode == 0, first.stdout + first.stderr
    before = lab.run("sh", "-c", STATE)
    assert before.returncode == 0, before.stderr

    again = lab.run("postern-setup", timeout=300)

    assert again.returncode == 0, again.stdout + again.stderr
    assert lab.run("sh", "-c", STATE).stdout == before.stdout


def test_only_loopback_listens(lab: Lab) -> None:
    listeners = lab.run("ss", "-Hltn").stdout.splitlines()
    addresses = {line.split()[3].rpartition(":")[0].split("%")[0] for line in listeners}

    assert {"127.0.0.1"} <= addresses <= {"127.0.0.1", "127.0.0.53", "127.0.0.54"}


def test_there_is_no_ssh_daemon(lab: Lab) -> None:
    assert lab.run("sh", "-c", "command -v sshd").returncode != 0


def test_the_queue_is_on_its_volume(lab: Lab) -> None:
    queue = lab.run(
        "findmnt", "--noheadings", "--output=SOURCE", "--target=/var/spool/queue/mqueue"
    )

    assert queue.stdout.strip().startswith("/dev/nvme")


def test_a_self_test_of_the_running_host_passes(lab: Lab) -> None:
    result = lab.run("postern-self-test", timeout=120)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("service", ["sendmail", "sendmail-client", "opendkim"])
def test_a_killed_service_comes_back_by_itself(lab: Lab, service: str) -> None:
    def main_pid() -> str:
        return lab.run("systemctl", "show", "--property=MainPID", "--value", service).stdout.strip()

    before = main_pid()
    lab.run("kill", "-KILL", before)
    eventually(lambda: main_pid() not in ("0", before))
    for verdict in send_and_judge(lab).values():
        assert faults(verdict) == {}


def test_nothing_leaves_unsigned_when_the_signer_is_down(lab: Lab) -> None:
    lab.run("systemctl", "stop", "opendkim")
    try:
        message_id = lab.send(to=RECIPIENTS, subject="unsigned?", text="Never.\n")
        time.sleep(3)
        with pytest.raises(LabError, match="did not get"):
            lab.wait_for(message_id=message_id, timeout=0)
    finally:
        lab.run("systemctl", "start", "opendkim")

    # The submission queue is run every 15 s.
    for verdict in lab.wait_for(message_id=message_id):
        assert faults(verdict) == {}


@pytest.mark.parametrize(
    ("sender", "message"),
    [
        ("hello@mail.example.com", b"From: someone@bank.example\nTo: a@example.net\n\nx\n"),
        ("hello@mail.example.com", b"From: hello@example.com\nTo: a@example.net\n\nx\n"),
        ("someone@bank.example", b"From: hello@mail.example.com\nTo: a@example.net\n\nx\n"),
        (
            "hello@mail.example.com",
            b"From: hello@mail.example.com\nFrom: someone@bank.example\nTo: a@example.net\n\nx\n",
        ),
        (
            "hello@mail.example.com",
            b'From: "hello@mail.example.com" <someone@bank.example>\nTo: a@example.net\n\nx\n',
        ),
    ],
    ids=["foreign From", "parent domain", "foreign envelope", "two Froms", "disguised From"],
)
def test_a_sender_outside_the_sending_domain_is_refused_with_a_5_7_code(
    lab: Lab, sender: str, message: bytes
) -> None:
    refused = lab.run("sendmail", "-v", "-t", "-oi", "-f", sender, input=message)

    assert refused.returncode != 0
    assert re.search(r"^55\d 5\.7\.\d+ ", refused.stdout, re.M), refused.stdout


def test_mail_to_root_reaches_the_postmaster(lab: Lab) -> None:
    subject = f"to root {time.time_ns()}"
    lab.submit(f"From: root\nTo: root\nSubject: {subject}\n\nA cron job failed.\n".encode())

    (verdict,) = lab.wait_for(subject=subject, receivers=["mx.example.net"])
    assert verdict.recipients == (lab.environment.postmaster,)
    assert faults(verdict) == {}


def test_what_can_be_neither_delivered_nor_returned_is_kept(lab: Lab) -> None:
    subject = f"refused {time.time_ns()}"
    # A recipient of its own, since it is suppressed from then on.
    recipient = f"a{time.time_ns()}@sinkhole.example"
    message = f"From: hello@mail.example.com\nTo: {recipient}\nSubject: {subject}\n\nx\n"
    lab.sinkhole("bounce")
    try:
        lab.submit(message.encode(), sender="<>")
        eventually(lambda: subject in lab.run("cat", "/var/spool/queue/undeliverable").stdout)
    finally:
        lab.sinkhole("accept")


@pytest.mark.parametrize(
    "address",
    [
        "postern-undeliverable@mail.example.com",
        '"Postern-Undeliverable"@mail.example.com',
        "postern-undeliverable+x@mail.example.com",
    ],
)
def test_nobody_sends_mail_to_where_it_is_kept(lab: Lab, address: str) -> None:
    refused = lab.run(
        *("sendmail", "-v", "-oi", "-f", "hello@mail.example.com", "--", address),
        input=b"From: hello@mail.example.com\nSubject: fill the disk\n\nx\n",
    )

    assert "550 5.1.1 " in refused.stdout
    assert refused.returncode != 0


def test_the_mail_log_is_rotated(lab: Lab) -> None:
    assert lab.run("systemctl", "is-active", "logrotate.timer").stdout == "active\n"
    assert lab.run("logrotate", "--debug", "/etc/logrotate.conf").returncode == 0


# The unit's program fails twice before it may begin, as when AWS gives the volume to another host.
FAILING_TWICE = """
mkdir -p /run/systemd/system/queue-volume.service.d
cat >/run/systemd/system/queue-volume.service.d/test.conf <<'END'
[Service]
ExecStart=
ExecStart=sh -c 'echo >>/run/postern/tries; [ "$(wc -l </run/postern/tries)" -ge 3 ]'
ExecStart=/usr/local/lib/postern/attach-queue-volume
RestartSec=1s
END
systemctl daemon-reload
"""


def test_who_needs_a_queue_volume_that_is_not_to_be_had_waits_until_it_is(lab: Lab) -> None:
    assert lab.run("sh", "-ec", FAILING_TWICE).returncode == 0
    # It needs the volume each minute, and would start it again while it is being stopped.
    lab.run("systemctl", "stop", "postern-suppressions.timer", "postern-suppressions")
    try:
        lab.run("systemctl", "stop", "var-spool-queue.mount", "queue-volume")
        assert lab.run("systemctl", "is-active", "sendmail").stdout == "inactive\n"

        started = lab.run("systemctl", "start", "sendmail", "sendmail-client", timeout=120)

        assert started.returncode == 0, started.stderr
        assert lab.run("cat", "/run/postern/tries").stdout == "\n" * 3
    finally:
        lab.run("rm", "-r", "/run/systemd/system/queue-volume.service.d")
        lab.run("systemctl", "daemon-reload")
        lab.run("systemctl", "start", "sendmail", "sendmail-client", timeout=120)
        lab.run("systemctl", "start", "postern-suppressions.timer")
    for verdict in send_and_judge(lab).values():
        assert faults(verdict) == {}


def test_after_a_reboot_everything_works_again(lab: Lab) -> None:
    def booted_at() -> str:
        try:
            return lab.run(
                *("systemctl", "show", "--property=UserspaceTimestampMonotonic", "--value"),
                timeout=5,
            ).stdout
        except (LabError, subprocess.TimeoutExpired):  # between two boots
            return ""

    before = eventually(booted_at)
    lab.run("systemctl", "--no-block", "reboot")
    eventually(lambda: booted_at() not in ("", before))

    state = lab.run("systemctl", "is-system-running", "--wait", timeout=300)
    assert state.stdout.strip() == "running", lab.run("systemctl", "--failed").stdout
    assert "ordering cycle" not in lab.run("journalctl", "--boot", "--no-pager").stdout
    assert lab.run("postern-self-test", timeout=120).returncode == 0
    for verdict in send_and_judge(lab).values():
        assert faults(verdict) == {}
