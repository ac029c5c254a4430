"""The deployed host as something that runs on it sees it: its SMTP ports, queues and mail log."""

import json
import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Self

from lab.internet.internet import DELIVERY_SECONDS
from lab.lab import Lab
from lab.network import host_namespace
from tests.lab.waiting import PATIENCE_SECONDS, eventually

DOMAIN = "mail.example.com"
OWN = f"hello@{DOMAIN}"

# What the MTA has to do: its processes but the one that listens, and the messages of both queues,
# in the order that a message takes, so that none slips by. (A message is its qf file; a killed
# process leaves others, of messages that it never accepted.)
_AT_WORK = """
find /var/spool/queue/mqueue-client -type f -name 'qf*'
pgrep --euid smmta sendmail | grep --invert-match --line-regexp \
    "$(systemctl show --property=MainPID --value sendmail)"
find /var/spool/queue/mqueue /var/spool/queue/mqueue-deferred -type f -name 'qf*'
"""


def namespace_of(lab: Lab) -> str:
    """The network namespace of the only host."""
    (zone,) = lab.environment.availability_zones
    return host_namespace(zone)


class Conversation:
    """An SMTP connection that sends what no well-meaning library would."""

    def __init__(self, connection: socket.socket) -> None:
        """Talk through `connection`, to which the server has said nothing yet."""
        self._socket = connection
        self._replies = connection.makefile("rb")

    def close(self) -> None:
        """Let go of the connection, which stays open as long as anything may read from it."""
        self._replies.close()

    def reply(self) -> str:
        """The next whole reply, such as "250 2.1.0 Ok"; "" when the server has hung up."""
        lines = []
        try:
            while line := self._replies.readline():
                lines.append(line.decode("ascii", "replace").rstrip())
                if lines[-1][3:4] != "-":
                    break
        except ConnectionResetError:
            pass
        return "\n".join(lines)

    def replies(self) -> list[str]:
        """Every reply until the server hangs up."""
        return list(iter(self.reply, ""))

    def send(self, text: bytes) -> None:
        """Send `text` as it is; a server that has hung up already is no error."""
        try:
            self._socket.sendall(text)
        except (BrokenPipeError, ConnectionResetError):
            return

    def command(self, line: str) -> str:
        """Send one command and return its reply."""
        self.send(line.encode() + b"\r\n")
        return self.reply()

    def begin(self, *recipients: str, sender: str = OWN) -> Self:
        """Go as far as DATA's 354, which every recipient must allow."""
        for line in (f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{r}>" for r in recipients), "DATA"):
            reply = self.command(line)
            assert reply[0] in "23", f"{line}: {reply}"
        return self

    def message(self, text: str) -> str:
        """Send a message, after `begin`, and return the verdict on it."""
        self.send(text.encode().replace(b"\n", b"\r\n") + b"\r\n.\r\n")
        return self.reply()


@contextmanager
def conversation(
    lab: Lab, *, port: int = 25, hello: str = "EHLO app", greeted: bool = True
) -> Iterator[Conversation]:
    """A connection to the host's MTA from the host itself, past its greeting and `hello`.

    Not `greeted`: as soon as it is open, with both still to come.
    """
    with lab.inside(namespace_of(lab)):
        connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
    with connection, closing(Conversation(connection)) as talk:
        if greeted:
            greeting = talk.reply()
            assert greeting.startswith("220 "), greeting
            if hello:
                talk.command(hello)
        yield talk


class MailLog:
    """What the host's mail log says from now on."""

    def __init__(self, lab: Lab) -> None:
        """Begin when all that the MTA did before is in the log."""
        self._lab = lab
        self._begin = self._end()
        self._settle()
        self._begin = self._end()

    def lines(self, pattern: str) -> list[str]:
        """The lines so far in which the regular expression `pattern` is found."""
        text = self._lab.run("tail", f"--bytes=+{self._begin}", "/var/log/mail.log").stdout
        return [line for line in text.splitlines() if re.search(pattern, line)]

    def count(self, pattern: str, *, expected: int) -> int:
        """How many lines have `pattern`, once there are `expected` and all the MTA did is written.

        Raises:
            AssertionError: there never were so many.
        """
        eventually(
            lambda: len(self.lines(pattern)) >= expected,
            explain=lambda: f"{len(self.lines(pattern))} of {expected} lines with {pattern}",
        )
        self._settle()
        return len(self.lines(pattern))

    def wait_for_end_of(self, queue_ids: list[str]) -> None:
        """Wait until each of these messages is delivered, bounced or deferred."""

        def waiting() -> set[str]:
            ended = "\n".join(self.lines(r" to=.* stat="))
            return {queue_id for queue_id in queue_ids if f" {queue_id}: to=" not in ended}

        eventually(lambda: not waiting(), explain=lambda: f"still in the queue: {waiting()}")

    def _end(self) -> int:
        return int(self._lab.run("stat", "--format=%s", "/var/log/mail.log").stdout) + 1

    def _settle(self) -> None:
        """Wait until the MTA has nothing to do, and the log has what it said."""
        wait_until_idle(self._lab)
        # Whatever was said before passes the journal and rsyslog before this does.
        marker = uuid.uuid4().hex
        self._lab.run("logger", "--priority=mail.info", marker)
        eventually(lambda: self.lines(marker))


def wait_until_idle(lab: Lab) -> None:
    """Wait until the MTA has no connection, and no message waits in a queue or is on its way."""

    def at_work() -> str:
        return lab.run("sh", "-c", _AT_WORK).stdout

    eventually(lambda: not at_work(), seconds=DELIVERY_SECONDS, explain=at_work)


def subjects_that_arrived(lab: Lab) -> list[str]:
    """The subjects of all messages at the receivers, when no further one is on its way."""
    wait_until_idle(lab)
    return [verdict.subject for verdict in lab.verdicts()]


def report_about(lab: Lab, text: str) -> str:
    """The report that the postmaster gets, with `text` in it."""

    def reports() -> list[str]:
        messages = [
            verdict.path.read_text(errors="replace")
            for verdict in lab.verdicts()
            if verdict.path is not None and verdict.recipients == (lab.environment.postmaster,)
        ]
        return [message for message in messages if text in message]

    return eventually(reports, seconds=DELIVERY_SECONDS)[0]


def queue_id(accepted: str) -> str:
    """The queue id in the reply to a message: "250 2.0.0 6AON4C7q002855 Message accepted..."."""
    assert accepted.startswith("250 2.0.0 "), accepted
    return accepted.split()[2]


def refused_so_far(lab: Lab, *, chain: str) -> int:
    """How many connections this chain of the host's packet filter has refused."""
    rules = json.loads(lab.run("nft", "--json", "list", "chain", "ip", "postern", chain).stdout)
    (packets,) = (
        statement["counter"]["packets"]
        for item in rules["nftables"]
        for statement in item.get("rule", {}).get("expr", [])
        if "counter" in statement
    )
    return int(packets)
