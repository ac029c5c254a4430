"""The deployed host as something that runs on it sees it: its SMTP ports and its mail log."""

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from lab.lab import Lab
from lab.network import host_namespace

DOMAIN = "mail.example.com"
OWN = f"hello@{DOMAIN}"

_SECONDS = 20  # for any single answer


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
        connection = socket.create_connection(("127.0.0.1", port), timeout=_SECONDS)
    with connection:
        talk = Conversation(connection)
        if greeted:
            greeting = talk.reply()
            assert greeting.startswith("220 "), greeting
            if hello:
                talk.command(hello)
        yield talk


class MailLog:
    """What the host's mail log says from now on."""

    def __init__(self, lab: Lab) -> None:
        """Begin at the log's present end."""
        self._lab = lab
        self._begin = int(lab.run("stat", "--format=%s", "/var/log/mail.log").stdout) + 1

    def lines(self, pattern: str) -> list[str]:
        """The lines so far in which the regular expression `pattern` is found."""
        text = self._lab.run("tail", f"--bytes=+{self._begin}", "/var/log/mail.log").stdout
        return [line for line in text.splitlines() if re.search(pattern, line)]

    def count(self, pattern: str, *, expected: int) -> int:
        """How many lines have `pattern`, as soon as it is `expected`, else after ten seconds."""
        deadline = time.monotonic() + 10
        while (found := len(self.lines(pattern))) != expected and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def wait_for_end_of(self, queue_ids: list[str]) -> None:
        """Wait until each of these messages is delivered, bounced or deferred."""
        deadline = time.monotonic() + 30
        waiting = set(queue_ids)
        while waiting:
            ended = "\n".join(self.lines(r" to=.* stat="))
            waiting = {queue_id for queue_id in waiting if f" {queue_id}: to=" not in ended}
            assert time.monotonic() < deadline, f"still in the queue: {waiting}"


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
