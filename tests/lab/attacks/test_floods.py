"""Too much of anything: size, recipients, connections, commands."""

import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from lab.internet.internet import DELIVERY_SECONDS
from lab.internet.verdict import faults
from lab.lab import Lab
from tests.lab.attacks.host import (
    OWN,
    Conversation,
    MailLog,
    conversation,
    queue_id,
    report_about,
    wait_until_idle,
)
from tests.lab.waiting import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.lab

FIRST = "mx.example.net"
MOST_RECIPIENTS = 1000  # sendmail.mc, confMAX_RCPTS_PER_MESSAGE
MOST_CLIENTS = 500  # sendmail.mc, confMAX_DAEMON_CHILDREN
MOST_BYTES = 36700160  # sendmail.mc, confMAX_MESSAGE_SIZE


@contextmanager
def idle_clients(lab: Lab, *, most: int) -> Iterator[list[Conversation]]:
    """Hold connections that were greeted and have sent half a command, "EHL"; yields them.

    As many as `most`, or as the MTA takes, which has no others. Afterwards it takes new ones.
    """
    wait_until_idle(lab)
    with ExitStack() as connections:
        held: list[Conversation] = []
        with suppress(ConnectionRefusedError, ConnectionResetError):
            while len(held) < most:
                client = connections.enter_context(conversation(lab, greeted=False))
                if not client.reply().startswith("220 "):
                    break  # taken by the kernel, and not by the MTA
                client.send(b"EHL")
                held.append(client)
        yield held

    def takes_connections() -> bool:
        with suppress(ConnectionRefusedError), conversation(lab, greeted=False) as talk:
            return talk.reply().startswith("220 ")
        return False

    eventually(takes_connections)


def memory_of_the_mta(lab: Lab) -> int:
    """Kilobytes that end with its processes: what they share is counted once."""
    return int(
        lab.run(
            "sh",
            "-c",
            "for p in $(pidof sendmail-mta); do cat /proc/$p/smaps_rollup; done 2>/dev/null |"
            " awk '/^Pss:/ {sum += $2} END {print sum}'",
        ).stdout
    )


def test_a_message_beyond_35_mib_is_refused(lab: Lab, mail_log: MailLog) -> None:
    with conversation(lab) as talk:
        announced = talk.command(f"MAIL FROM:<{OWN}> SIZE={MOST_BYTES + 1}")
        assert announced.startswith("552 5.2.3 ")
        talk.begin("victim@example.net")
        refused = talk.message(f"From: {OWN}\nSubject: x\n\n" + ("x" * 998 + "\n") * 37000)
        assert refused.startswith("552 5.2.3 ")

    assert mail_log.count(r"message size .* exceeds maximum", expected=1) == 1


def test_a_header_beyond_64_kib_is_refused(lab: Lab, mail_log: MailLog) -> None:
    with conversation(lab) as talk:
        talk.begin("victim@example.net")
        big = "X-Big: " + ("y" * 900 + "\n ") * 73
        assert talk.message(f"From: {OWN}\n{big}y\n\nx").startswith("552 5.6.0 ")

    assert mail_log.count(r"headers too large \(65536 max\)", expected=1) == 1


def test_a_line_too_long_for_the_receiver_is_reported_to_the_postmaster(lab: Lab) -> None:
    subject = uuid.uuid4().hex
    with conversation(lab) as talk:
        talk.begin(f"{subject}@example.net")
        accepted = talk.message(f"From: {OWN}\nSubject: x\n\n" + "y" * 200000)
        assert accepted.startswith("250 ")

    report = report_about(lab, subject)
    assert "500 Line too long" in report
    assert "yyyyyyyy" not in report


def test_the_self_tests_mailbox_takes_no_mail_from_others(lab: Lab, mail_log: MailLog) -> None:
    mailbox = "/var/lib/postern-self-test/mailbox"
    # It was once in a directory that belongs to whichever of the two services started last.
    assert lab.run("systemctl", "restart", "sendmail").returncode == 0
    assert lab.run("postern-self-test", timeout=120).returncode == 0

    with conversation(lab) as talk:
        talk.begin("postern-self-test")
        accepted = queue_id(talk.message(f"From: {OWN}\nSubject: x\n\nx"))
    mail_log.wait_for_end_of([accepted])

    assert lab.run("test", "-e", mailbox).returncode != 0
    assert mail_log.count(f"{accepted}: to={mailbox}, .*dsn=5", expected=1) == 1


def test_a_command_line_without_an_end_is_refused(lab: Lab, mail_log: MailLog) -> None:
    with conversation(lab) as talk:
        talk.send(b"MAIL FROM:<" + b"x" * 100000)
        assert talk.reply().startswith("421 4.7.0 ")

    assert mail_log.count("SMTP violation, input too long", expected=1) == 1


def test_of_ten_thousand_recipients_nine_thousand_are_told_to_wait(
    lab: Lab, mail_log: MailLog
) -> None:
    with conversation(lab) as talk:
        talk.command(f"MAIL FROM:<{OWN}>")
        talk.send(b"".join(b"RCPT TO:<v%d@example.net>\r\n" % n for n in range(10000)))
        replies = Counter(talk.reply()[:9] for _ in range(10000))
        talk.command("RSET")

    refused = 10000 - MOST_RECIPIENTS
    assert replies == {"250 2.1.5": MOST_RECIPIENTS, "452 4.5.3": refused}
    assert mail_log.count("Too many recipients", expected=refused) == refused


def test_the_sendmail_command_sends_to_more_recipients_in_turns(lab: Lab) -> None:
    subject = uuid.uuid4().hex
    everyone = {f"v{number}@example.net" for number in range(MOST_RECIPIENTS + 100)}
    message = f"From: {OWN}\nTo: list:;\nSubject: {subject}\n\nx\n"

    sent = lab.run("sendmail", "-oi", "-f", OWN, "--", *everyone, input=message.encode())

    assert sent.returncode == 0

    def got() -> list[str]:
        verdicts = [v for v in lab.verdicts() if v.subject == subject]
        return [recipient for verdict in verdicts for recipient in verdict.recipients]

    def all_got_it() -> bool:
        lab.run("sendmail-msp", "-Ac", "-q")
        return len(got()) >= len(everyone)

    eventually(
        all_got_it,
        seconds=DELIVERY_SECONDS,
        explain=lambda: f"{len(got())} of {len(everyone)}",
    )
    wait_until_idle(lab)
    assert sorted(got()) == sorted(everyone)


def test_200_clients_that_stall_leave_everybody_else_served(lab: Lab) -> None:
    wait_until_idle(lab)
    before = memory_of_the_mta(lab)
    with idle_clients(lab, most=200) as clients:
        assert len(clients) == 200
        held = memory_of_the_mta(lab) - before
        message_id = lab.send(to=["someone@example.net"], subject="served", text="In time.\n")
        # Their sockets count against what may deliver at once, so it leaves with the next queue
        # run. A client that stalls has five minutes.
        (verdict,) = lab.wait_for(message_id=message_id, receivers=[FIRST], timeout=240)
        # Each was still being waited for while the message went through.
        assert all(client.command("O app").startswith("250-") for client in clients)

    assert faults(verdict) == {}
    assert held < 200 * 1024, f"{held} kB for 200 connections"


def test_clients_have_a_limit_and_what_comes_then_waits(lab: Lab, mail_log: MailLog) -> None:
    with idle_clients(lab, most=MOST_CLIENTS + 1) as clients:
        assert MOST_CLIENTS * 0.8 < len(clients) <= MOST_CLIENTS
        eventually(lambda: mail_log.lines("rejecting connections on daemon M[ST]A: "))
        message_id = lab.send(to=["someone@example.net"], subject="later", text="I can wait.\n")

    lab.run("sendmail-msp", "-Ac", "-q")
    (verdict,) = lab.wait_for(message_id=message_id, receivers=[FIRST])
    assert faults(verdict) == {}


def test_a_client_may_stall_for_five_minutes(lab: Lab) -> None:
    timeouts = lab.run("grep", "^O Timeout.*=", "/etc/mail/sendmail.cf").stdout.split()

    assert "Timeout.command=5m" in timeouts
    assert "Timeout.datablock=340s" in timeouts


@pytest.mark.parametrize(
    ("setting", "before", "half", "farewell"),
    [
        ("command", [], b"EHL", b"500 5.5.1 "),  # what came is taken for a command
        (
            "datablock",
            ["HELO app", f"MAIL FROM:<{OWN}>", "RCPT TO:<victim@example.net>", "DATA"],
            b"Subject: x",
            b"421 4.4.1 ",
        ),
    ],
)
def test_a_client_that_stalls_for_longer_is_hung_up_on(
    lab: Lab, setting: str, before: list[str], half: bytes, farewell: bytes
) -> None:
    # The MTA's program and settings, but for one that nobody wants to wait for.
    impatient = lab.host_command(
        *("timeout", str(PATIENCE_SECONDS), "runuser", "-u", "smmta", "-g", "smmsp", "--"),
        *("sendmail-mta", "-bs", f"-OTimeout.{setting}=2s"),
    )
    with subprocess.Popen(
        impatient, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as mta:
        assert mta.stdin is not None
        assert mta.stdout is not None
        assert mta.stdout.readline().startswith(b"220 ")
        for command in before:
            mta.stdin.write(f"{command}\r\n".encode())
            assert mta.stdout.readline()[:1] in (b"2", b"3")
        mta.stdin.write(half)
        said = b"".join(iter(mta.stdout.readline, b""))

    assert said.startswith(farewell)
    assert mta.returncode != 124  # timeout(1) did not have to end it


def test_senseless_commands_end_the_connection(lab: Lab, mail_log: MailLog) -> None:
    with conversation(lab) as talk:
        replies = [talk.command(f"NONSENSE {number}") for number in range(100)]

    assert any(reply.startswith("421 4.7.0 ") for reply in replies)
    assert replies[-1] == ""
    assert mail_log.count("did not issue MAIL/EXPN/VRFY/ETRN", expected=1) == 1


@pytest.mark.parametrize(
    ("command", "reply", "logged"),  # None: the connection as a whole is
    [
        ("VRFY root", "252 2.5.2 Cannot VRFY", r"VRFY root \[rejected\]"),
        ("EXPN root", "502 5.7.0", r"EXPN root \[rejected\]"),
        ("ETRN example.net", "502 5.7.0", r"ETRN example.net \[rejected\]"),
        ("DEBUG", "500 5.5.1", '"debug" command from localhost'),
        ("WIZ", "500 5.5.1", '"wiz" command from localhost'),
        ("GET / HTTP/1.1", "421 4.7.0", "probable open proxy"),
        ("AUTH PLAIN AGFkbWluAGFkbWlu", "503 5.3.3", None),
        ("STARTTLS", "454 4.3.3", None),
        ("VERB", "502 5.7.0", None),
        ("TURN", "502 5.5.1", None),
        ("BDAT 5 LAST", "500 5.5.1", None),
        ("XCLIENT ADDR=192.0.2.1", "500 5.5.1", None),
        ("XFORWARD ADDR=192.0.2.1", "500 5.5.1", None),
        (f"SEND FROM:<{OWN}>", "502 5.5.1", None),
    ],
)
def test_commands_that_only_an_attacker_sends_do_nothing(
    lab: Lab, mail_log: MailLog, command: str, reply: str, logged: str | None
) -> None:
    hello = "" if command.startswith("GET") else "EHLO app"
    with conversation(lab, hello=hello) as talk:
        assert talk.command(command).startswith(reply)
        talk.command("QUIT")

    assert mail_log.count(logged or "did not issue MAIL/EXPN/VRFY/ETRN", expected=1) == 1
