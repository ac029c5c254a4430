"""A recipient that does not exist is refused from then on, in words that say how to lift it."""

import json
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from lab.lab import Lab
from tests.lab.laptop import postern, postern_json
from tests.lab.waiting import eventually

pytestmark = pytest.mark.lab

LIST = "/var/spool/queue/suppressions"


@pytest.fixture
def recipient() -> str:
    return f"gone{uuid.uuid4().hex[:8]}@s.sinkhole.example"


@pytest.fixture(autouse=True)
def _an_accepting_sinkhole(lab: Lab) -> Iterator[None]:
    yield
    lab.sinkhole("accept")


def submit(lab: Lab, *recipients: str) -> subprocess.CompletedProcess[str]:
    """A message by SMTP as far as its recipients; prints each one's answer."""
    program = (
        "import smtplib, sys\n"
        "with smtplib.SMTP('127.0.0.1', 587) as smtp:\n"
        "    smtp.ehlo(); smtp.mail(sys.argv[1])\n"
        "    for one in sys.argv[2:]: print(*smtp.rcpt(one))\n"
    )
    sender = f"hello@{lab.environment.sending_domain}"
    return lab.run("python3", "-c", program, sender, *recipients)


def learn(lab: Lab) -> None:
    """As the timer does each minute."""
    done = lab.run("systemctl", "start", "postern-suppressions.service")
    assert done.returncode == 0, done.stderr


def log(lab: Lab) -> str:
    return lab.run("journalctl", "--quiet", "--no-pager", "-t", "sendmail", "-n", "200").stdout


def refuse(lab: Lab, behaviour: str, recipient: str) -> None:
    """Send to the recipient and see its receiver refuse it for good."""
    lab.sinkhole(behaviour)
    lab.send(to=[recipient], subject="to nobody", text="x\n")
    eventually(lambda: f"to=<{recipient}>" in log(lab))
    lab.sinkhole("accept")


def test_the_timer_runs(lab: Lab) -> None:
    assert lab.run("systemctl", "is-active", "postern-suppressions.timer").stdout == "active\n"
    assert lab.run("systemctl", "is-enabled", "postern-suppressions.timer").stdout == "enabled\n"


def test_who_does_not_exist_is_refused_until_an_operator_lifts_it(lab: Lab, recipient: str) -> None:
    refuse(lab, "bounce", recipient)
    learn(lab)

    status, listed = postern_json(lab, "suppressions", "list")
    assert status == 0
    (entry,) = [one for one in listed["suppressions"] if one["address"] == recipient]
    assert entry["words"] == "550 5.1.1 No such user"
    assert entry["until"] - entry["since"] == lab.environment.suppressions.days * 86400

    answers = submit(lab, recipient.upper(), f"other-{recipient}").stdout.splitlines()
    assert answers[0].startswith("550 b'5.1.1 ")
    assert "postern suppressions remove ADDRESS" in answers[0]
    assert answers[1].startswith("250 ")
    sender = f"hello@{lab.environment.sending_domain}"
    by_program = lab.run(
        "sendmail", "-oi", "-f", sender, "--", recipient, input=b"Subject: x\n\nx\n"
    )
    assert by_program.returncode == 67  # EX_NOUSER

    assert postern(lab, "suppressions", "remove", recipient).returncode == 0
    assert submit(lab, recipient).stdout.startswith("250 ")
    learn(lab)
    assert submit(lab, recipient).stdout.startswith("250 ")


def test_a_refusal_for_another_reason_suppresses_nobody(lab: Lab, recipient: str) -> None:
    refuse(lab, "bounce-at-data", recipient)
    learn(lab)

    assert submit(lab, recipient).stdout.startswith("250 ")


def test_what_anybody_logs_in_sendmails_name_suppresses_nobody(lab: Lab, recipient: str) -> None:
    line = (
        f"6AQ2L74k003965: to=<{recipient}>, delay=00:00:00, xdelay=00:00:00, mailer=esmtp, "
        "pri=60427, relay=mx.sinkhole.example. [198.51.100.27], dsn=5.1.1, "
        "reply=550 5.1.1 No such user, stat=User unknown"
    )
    lab.run("runuser", "-u", "nobody", "--", "logger", "-t", "sendmail", "-p", "mail.info", line)
    eventually(lambda: recipient in log(lab))
    learn(lab)

    assert submit(lab, recipient).stdout.startswith("250 ")


def test_the_list_is_roots_alone(lab: Lab, recipient: str) -> None:
    postern(lab, "suppressions", "add", recipient)
    assert lab.run("stat", "-c", "%U:%G %a", LIST).stdout == "root:root 600\n"
    for user in ("smmta", "smmsp", "nobody"):
        tried = lab.run("runuser", "-u", user, "--", "sh", "-c", f"mv {LIST} /tmp/; echo >> {LIST}")
        assert tried.returncode != 0
    assert recipient in lab.run("cat", LIST).stdout
    postern(lab, "suppressions", "remove", recipient)


@pytest.fixture
def nothing_is_learnt(lab: Lab) -> Iterator[None]:
    """The timer's turn, which mends a damaged list, is passed over."""
    dropin = "/run/systemd/system/postern-suppressions.service.d/passed-over.conf"
    pass_over = f"install -D /dev/stdin {dropin} <<< $'[Unit]\\nConditionPathExists=!/'"
    stop = "systemctl daemon-reload; systemctl stop postern-suppressions.service"
    assert lab.run("bash", "-c", f"{pass_over} && {stop}").returncode == 0
    yield
    lab.run("bash", "-c", f"rm {dropin}; systemctl daemon-reload")


@pytest.mark.usefixtures("nothing_is_learnt")
def test_mail_flows_with_a_damaged_list_and_the_damage_is_told(lab: Lab, recipient: str) -> None:
    postern(lab, "suppressions", "add", recipient)
    kept = lab.run("cat", LIST).stdout
    try:
        damage = f"printf '\\377\\000garbage\\n' > {LIST}; rm /etc/mail/access.db"
        lab.run("bash", "-c", damage)

        again = lab.run("postern-setup", timeout=300)

        assert again.returncode == 0, again.stderr
        assert "damaged" in again.stderr
        assert submit(lab, recipient).stdout.startswith("250 ")
        status, listed = postern_json(lab, "suppressions", "list")
        assert status == 1
        assert "damaged" in listed["errors"][0]
    finally:
        lab.run("bash", "-c", f"cat > {LIST}", input=kept.encode())
        postern(lab, "suppressions", "remove", recipient)
        lab.run("rm", "-f", f"{LIST}.damaged")


def test_learning_twice_and_setting_up_again_change_nothing(lab: Lab, recipient: str) -> None:
    refuse(lab, "bounce", recipient)
    learn(lab)
    state = f"cat {LIST}; sha256sum /etc/mail/access.db; stat -c %Y.%i /etc/mail/access.db"
    before = lab.run("bash", "-c", state).stdout

    learn(lab)
    applied = json.loads(lab.run("postern-suppressions", "apply").stdout)

    assert lab.run("bash", "-c", state).stdout == before
    assert applied["damaged"] == 0
    assert postern(lab, "suppressions", "remove", recipient).returncode == 0
