"""The mail log as JSON: what rsyslog makes of sendmail's lines, whatever a receiver says."""

import json
import re
import socketserver
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab.internet.addresses import SINKHOLE, SINKHOLE_DOMAIN
from lab.internet.receivers.sinkhole import Behaviour
from lab.lab import Lab
from lab.network import INTERNET
from tests.lab.waiting import eventually

pytestmark = pytest.mark.lab

PLAIN = "/var/log/mail.log"
JSON = "/var/log/postern/mail.log"

EXPECTED = {
    Behaviour.ACCEPT: ("sent", "2.0"),
    Behaviour.REFUSE_CONNECTIONS: ("deferred", "4.4"),
    Behaviour.GREYLIST: ("deferred", "4.7"),
    Behaviour.CLOSE_AFTER_EACH: ("sent", "2.0"),
    Behaviour.DEFER_AT_RCPT: ("deferred", "4.2"),
    Behaviour.DEFER_AT_DATA: ("deferred", "4.3"),
    Behaviour.BOUNCE: ("bounced", "5.1"),
    # The receiver's own code: sendmail's guess is 5.2.
    Behaviour.BOUNCE_AT_DATA: ("bounced", "5.7"),
    Behaviour.DROP_IN_DATA: ("deferred", "4.4"),
    Behaviour.DROP_AFTER_DATA: ("deferred", "4.4"),
    Behaviour.NO_STARTTLS: ("sent", "2.0"),
    Behaviour.BROKEN_STARTTLS: ("sent", "2.0"),
    Behaviour.EXPIRED_CERTIFICATE: ("sent", "2.0"),
}
"""All but the two that take minutes."""


class Logs:
    """What both files gained since they were opened."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.mark()  # the file is there after the first line
        self._begin = {
            log: int(lab.run("stat", "--format=%s", log).stdout) for log in (PLAIN, JSON)
        }

    def mark(self) -> None:
        """Return when everything that was logged before is in both files."""
        mark = f"mark {uuid.uuid4()}"
        self._lab.run("logger", "--priority=mail.info", "--tag=test", mark)
        command = f"grep --quiet '{mark}' {PLAIN} && grep --quiet '{mark}' {JSON}"
        eventually(lambda: self._lab.run("bash", "-c", command).returncode == 0)

    def _since(self, log: str) -> list[str]:
        text = self._lab.run("tail", f"--bytes=+{self._begin[log] + 1}", log).stdout
        return text.removesuffix("\n").split("\n")

    def plain(self) -> list[str]:
        return self._since(PLAIN)

    def json(self) -> list[dict[str, Any]]:
        """The objects; a line that is none fails."""
        return [json.loads(line) for line in self._since(JSON)]

    def attempts(self, recipient: str) -> list[dict[str, Any]]:
        """The lines with an outcome for this recipient."""
        return [line for line in self.json() if recipient in line.get("to", "")]

    def first_attempt(self, recipient: str) -> dict[str, Any]:
        return eventually(lambda: self.attempts(recipient))[0]


@pytest.fixture
def logs(lab: Lab) -> Logs:
    return Logs(lab)


@pytest.fixture(autouse=True)
def _afterwards(lab: Lab) -> Iterator[None]:
    """The sinkhole accepts, and nothing waits."""
    yield
    eventually(lambda: _accepts(lab))

    def empty() -> bool:
        lab.run("sendmail", "-qR@")
        return not lab.run("bash", "-c", "ls /var/spool/queue/mqueue{,-deferred} | grep ^qf").stdout

    eventually(empty)


def _accepts(lab: Lab) -> bool:
    lab.sinkhole("accept")
    return True


def somebody() -> str:
    return f"{uuid.uuid4()}@log.{SINKHOLE_DOMAIN}"


@contextmanager
def a_receiver_that_says(lab: Lab, **answers: bytes) -> Iterator[None]:
    """In the sinkhole's place: "rcpt" answers each RCPT, "end" each message."""

    class Conversation(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say(b"220 mx.sinkhole.example ESMTP")
            for line in self.rfile:
                command = line[:4].upper()
                if command == b"RCPT":
                    self._say(answers.get("rcpt", b"250 ok"))
                elif command == b"DATA":
                    self._say(b"354 go on")
                    while self.rfile.readline() not in (b".\r\n", b""):
                        pass
                    self._say(answers.get("end", b"250 ok"))
                elif command == b"QUIT":
                    break
                else:
                    self._say(b"250 ok")

        def _say(self, answer: bytes) -> None:
            self.wfile.write(answer + b"\r\n")

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    lab.sinkhole("refuse-connections")
    with lab.inside(INTERNET):
        server = eventually(lambda: Server((SINKHOLE, 25), Conversation))
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("behaviour", EXPECTED)
def test_each_attempt_has_one_outcome(lab: Lab, logs: Logs, behaviour: Behaviour) -> None:
    recipient = somebody()
    lab.sinkhole(behaviour)

    lab.send(to=[recipient], subject="log", text="x\n")
    attempt = logs.first_attempt(recipient)

    assert (attempt["outcome"], attempt["class"]) == EXPECTED[behaviour]
    assert attempt["to"] == f"<{recipient}>"
    assert attempt["domain"] == f"log.{SINKHOLE_DOMAIN}"
    assert attempt["relay"] == f"mx.{SINKHOLE_DOMAIN}. [{SINKHOLE}]"
    assert attempt["message"].startswith(f"{attempt['queue_id']}: to=<{recipient}>, ")
    assert 0 <= attempt["delay_seconds"] < 60
    assert "policy" not in attempt
    assert [line["outcome"] for line in logs.attempts(recipient)] == [attempt["outcome"]]


@pytest.mark.parametrize(
    ("answers", "outcome", "code"),
    [
        ({"rcpt": b"550 no, dsn=2.0.0, stat=Sent (ok)"}, "bounced", "5.1"),
        (
            {
                "rcpt": b"550 no, delay=00:00:00, xdelay=00:00:00, mailer=esmtp, pri=1, "
                b"relay=x. [192.0.2.1], dsn=2.0.0, stat=Sent"
            },
            "bounced",
            "5.1",
        ),
        ({"rcpt": b"450 4.2.0 " + b"x, dsn=5.1.1, stat=User unknown " * 60}, "deferred", "4.2"),
        ({"rcpt": b"450 5.1.1 x"}, "deferred", "4.2"),
        ({"rcpt": b'550 5.1.1 "\\", \xff\xfe \x01\x1b[31m caf\xc3\xa9 \x7f'}, "bounced", "5.1"),
        ({"rcpt": b'550 5.1.1 "}\\u0000,"outcome":"sent"'}, "bounced", "5.1"),
        ({"end": b"250 2.0.0 ok, dsn=5.1.1, stat=User unknown"}, "sent", "2.0"),
    ],
)
def test_a_receivers_words_change_no_outcome(
    lab: Lab, logs: Logs, answers: dict[str, bytes], outcome: str, code: str
) -> None:
    recipient = somebody()

    with a_receiver_that_says(lab, **answers):
        lab.send(to=[recipient], subject="log", text="x\n")
        attempt = logs.first_attempt(recipient)

    assert (attempt["outcome"], attempt["class"]) == (outcome, code)
    assert attempt["relay"] == f"mx.{SINKHOLE_DOMAIN}. [{SINKHOLE}]"
    assert [line["outcome"] for line in logs.attempts(recipient)] == [outcome]


@pytest.mark.parametrize(
    ("answer", "policy"),
    [
        (b"550-5.7.26 This mail has been blocked\r\n550 5.7.26 by policy", True),
        (b"550 5.7.515 Access denied, sending domain does not meet the required level", True),
        (b"554 5.7.1 Service unavailable; Client host [203.0.113.1] blocked using x", True),
        (b"550 listed at zen.spamhaus.org", True),
        (b"421 4.7.28 Our system has detected an unusual rate of mail", True),
        (b"550 5.7.1 Relaying denied", False),
        (b"550 5.2.1 This mailbox is blocked", False),
        (b"530 5.7.0 Authentication required", False),
        (b"550 5.1.1 <someone@spf.example> unknown", False),
    ],
)
def test_a_refusal_of_the_sender_is_told_from_one_of_the_recipient(
    lab: Lab, logs: Logs, answer: bytes, policy: bool
) -> None:
    recipient = somebody()

    with a_receiver_that_says(lab, end=answer):
        lab.send(to=[recipient], subject="log", text="x\n")
        attempt = logs.first_attempt(recipient)

    # Of several lines sendmail keeps the first.
    assert (
        attempt["reply"].replace("-", " ", 1) == answer.decode().replace("-", " ", 1).split("\r")[0]
    )
    assert attempt.get("policy") == (1 if policy else None)


def test_an_unknown_host_is_a_bounce_without_a_reply(lab: Lab, logs: Logs) -> None:
    recipient = f"{uuid.uuid4()}@nx.invalid"

    lab.send(to=[recipient], subject="log", text="x\n")
    attempt = logs.first_attempt(recipient)

    assert (attempt["outcome"], attempt["dsn"]) == ("bounced", "5.1.2")
    assert attempt["relay"] == "nx.invalid."
    assert attempt["stat"].startswith("Host unknown")
    assert "reply" not in attempt


def test_a_line_for_several_recipients_counts_once(lab: Lab, logs: Logs) -> None:
    recipients = [somebody() for _ in range(40)]

    lab.send(to=recipients, subject="log", text="x\n")
    eventually(lambda: all(logs.attempts(recipient) for recipient in recipients))

    # sendmail divides a list that is too long for one line.
    lines = [line for line in logs.json() if "log.sinkhole.example" in line.get("to", "")]
    assert {line["outcome"] for line in lines} == {"sent"}
    assert sorted(",".join(line["to"] for line in lines).split(",")) == sorted(
        f"<{recipient}>" for recipient in recipients
    )


def test_mail_that_stays_on_this_host_has_no_outcome(lab: Lab, logs: Logs) -> None:
    lab.submit(b"From: root\nTo: root\nSubject: log\n\nx\n")
    eventually(lambda: [line for line in logs.json() if line.get("outcome")])

    by_mailer = {
        mailer[1]: line.get("outcome")
        for line in logs.json()
        if (mailer := re.search(r", mailer=(\S+), ", line["message"]))
    }
    assert by_mailer == {"relay": None, "local": None, "esmtp": "sent"}


@pytest.mark.parametrize(
    ("sender", "message"),
    [
        ("someone@bank.example", b"From: hello@mail.example.com\nTo: a@example.net\n\nx\n"),
        ("hello@mail.example.com", b"From: someone@bank.example\nTo: a@example.net\n\nx\n"),
    ],
    ids=["envelope", "header"],
)
def test_what_this_host_refuses_is_refused_once(
    lab: Lab, logs: Logs, sender: str, message: bytes
) -> None:
    lab.run("sendmail", "-t", "-oi", "-f", sender, input=message)

    refused = eventually(lambda: [o for o in logs.json() if o.get("outcome") == "refused"])
    logs.mark()
    assert len(refused) == 1
    assert refused[0]["reject"].startswith("550 5.7.1 ")
    assert not logs.attempts("a@example.net")


def test_a_message_given_up_is_expired(lab: Lab, logs: Logs) -> None:
    recipient = somebody()
    lab.sinkhole("defer-at-rcpt")
    lab.send(to=[recipient], subject="log", text="x\n")
    first = logs.first_attempt(recipient)

    def given_up() -> list[dict[str, Any]]:
        # A second instead of five days.
        now = ("-OMinQueueAge=0", "-OMaxQueueAge=0", "-OTimeout.queuereturn=1s")
        lab.run("sendmail-mta", "-q", *now)
        return [line for line in logs.json() if line.get("outcome") == "expired"]

    (expired,) = eventually(given_up)
    assert expired["queue_id"] == first["queue_id"]
    assert expired["stat"].startswith("Cannot send message for ")


def test_every_line_has_its_json_whatever_its_bytes(lab: Lab, logs: Logs) -> None:
    lines = (
        rb'<22>sendmail[77]: "quotes" \\back\\ \x01\x1b[31m caf\xc3\xa9 \xff\xfe \xe2\x82 \x7f end',
        rb"<22>odd\"tag\xff[12]: x",
        rb"<22>sendmail: ",
        rb"<22>sendmail[78]: " + b"long " * 3000,
    )
    for line in lines:
        script = (
            "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
            f"s.connect('/dev/log'); s.send(b'{line.decode()}')"
        )
        logged = lab.run("python3", "-c", script)
        assert logged.returncode == 0, logged.stderr
    lab.send(to=[somebody()], subject="log", text="x\n")
    eventually(lambda: [line for line in logs.json() if line.get("outcome")])
    logs.mark()

    read = logs.json()

    assert len(read) == len(logs.plain())
    assert all({"time", "program", "message"} <= line.keys() for line in read)
    strict = lab.run("python3", "-c", f"open('{JSON}', encoding='utf-8', errors='strict').read()")
    assert strict.returncode == 0, strict.stderr
