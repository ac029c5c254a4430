"""`postern lab` against the running lab."""

import subprocess
import sys
from pathlib import Path

import pytest

from lab.lab import Lab
from lab.places import PROJECT

pytestmark = pytest.mark.lab


def postern(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ops", "lab", *arguments],
        cwd=PROJECT,
        check=False,
        capture_output=True,
        text=True,
        input=stdin,
    )


def test_send_shows_each_receivers_verdict_and_where_the_message_lies(lab: Lab) -> None:
    sent = postern("send", "--subject", "hello there")

    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert "Every check passes at every receiver" in sent.stdout
    assert "hello there" in sent.stdout
    assert list(Path(lab.places.received).glob("mx.example.org/*.eml"))


def test_send_fails_and_says_what_the_receiver_saw_when_something_is_wrong(lab: Lab) -> None:
    lab.publish(["ptr-missing"])
    try:
        sent = postern("send")
    finally:
        lab.publish()

    assert sent.returncode == 1
    assert "no confirmed name in reverse DNS" in " ".join(
        cell.strip() for line in sent.stdout.splitlines() for cell in line.split("│")[2:3]
    )


def test_shell_is_root_on_the_mail_host(lab: Lab) -> None:
    shell = postern("shell", stdin="id -un; hostname\n")

    assert shell.stdout.split()[-2:] == ["root", lab.environment.sending_domain]


def test_logs_are_the_hosts_journal(lab: Lab) -> None:  # noqa: ARG001 - has to run
    assert "DKIM-Signature field added" in postern("logs").stdout


def test_status_names_the_host_and_finds_no_failed_unit(lab: Lab) -> None:
    status = postern("status")

    assert status.returncode == 0
    assert lab.instance_ids[0] in status.stdout
    assert lab.cloud.endpoint in status.stdout
    assert "failed units     none" in status.stdout
