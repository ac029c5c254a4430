"""An application that sends: many sessions at a time, each a message after another.

A program: `python3 -m bench.source SETTINGS` with the fields of `Settings` as JSON. It prints a
line when it is ready, begins when a line comes on standard input, and ends with its account as
JSON.
"""

from __future__ import annotations

import json
import os
import pwd
import resource
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import count
from typing import Any

from bench.names import recipient_domain

_LINE = b"The quick brown fox jumps over the lazy dog, again and again and again 0123.\r\n"
_PAUSE = 0.05
"""Seconds before a message that was refused for the moment is tried again."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to send and how."""

    run: str
    messages: int
    octets: int
    domains: int
    sending_domain: str
    sessions: int = 20
    submission: str = "smtp"
    """Or "sendmail": a call of `sendmail -t` for each message, by an ordinary user."""
    per_connection: int = 1
    """How many messages a session sends before it connects anew."""
    address: str = "127.0.0.1"
    port: int = 25
    patience: float = 120.0
    """For how many seconds a message that is refused for the moment is tried."""


@dataclass
class Account:
    """What became of the messages."""

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """The server's words when it refused for the moment, and how often."""
    unanswered: int = 0
    """Messages whose fate is not known: they are sent again, and may come twice."""
    given_up: int = 0

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def message(settings: Settings, number: int) -> bytes:
    """Message `number`, of `settings.octets` octets; no line begins with a dot."""
    head = (
        f"From: Bench <bench@{settings.sending_domain}>\r\n"
        f"To: u{number}@{recipient_domain(number, domains=settings.domains)}\r\n"
        f"Subject: message {number} of {settings.run}\r\n"
        f"Date: {formatdate()}\r\n"
        f"Message-ID: <{number}.{settings.run}@{settings.sending_domain}>\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=us-ascii\r\n"
        "\r\n"
    ).encode()
    left = settings.octets - len(head)
    body = (_LINE * (left // len(_LINE) + 1))[: left - 2]
    if body.endswith(b"\r"):  # cut in mid-CRLF: sendmail refuses a bare CR
        body = body[:-1] + b"."
    return head + body + b"\r\n"


class Refused(Exception):
    """The server does not take it at the moment."""


class _Sendmail:
    """Calls of `sendmail -t`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.sent_whole = False

    def send(self, number: int) -> None:
        """Hand message `number` over; raises Refused."""
        domain = self._settings.sending_domain
        done = subprocess.run(
            ["/usr/sbin/sendmail", "-t", "-oi", "-f", f"bench@{domain}"],
            input=message(self._settings, number).replace(b"\r\n", b"\n"),
            capture_output=True,
            check=False,
        )
        if done.returncode:
            words = (done.stdout + done.stderr).decode(errors="replace").strip()
            raise Refused(f"status {done.returncode}: {words}")

    def quit(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Nothing is left to do."""


class _Connection:
    """A client's end of an SMTP session."""

    def __init__(self, settings: Settings) -> None:
        self._socket = socket.create_connection((settings.address, settings.port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._settings = settings
        self.sent_whole = False
        self._expect(b"2")
        self._ask(b"EHLO bench\r\n", b"2")

    def send(self, number: int) -> None:
        """Hand message `number` over; raises Refused or OSError."""
        self.sent_whole = False
        settings = self._settings
        domain = recipient_domain(number, domains=settings.domains)
        self._ask(f"MAIL FROM:<bench@{settings.sending_domain}>\r\n".encode(), b"2")
        self._ask(f"RCPT TO:<u{number}@{domain}>\r\n".encode(), b"2")
        self._ask(b"DATA\r\n", b"3")
        self.sent_whole = True
        self._ask(message(settings, number) + b".\r\n", b"2")

    def quit(self) -> None:
        self._socket.sendall(b"QUIT\r\n")
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    def _ask(self, command: bytes, wanted: bytes) -> None:
        self._socket.sendall(command)
        self._expect(wanted)

    def _expect(self, wanted: bytes) -> None:
        while True:
            line, separator, rest = self._buffer.partition(b"\r\n")
            if not separator:
                received = self._socket.recv(4096)
                if not received:
                    raise ConnectionResetError("closed")
                self._buffer += received
                continue
            self._buffer = rest
            if line[3:4] != b"-":
                if line[:1] != wanted:
                    raise Refused(line.decode(errors="replace"))
                return


def send_all(settings: Settings) -> Account:
    """Send every message, each until it is accepted."""
    account = Account()
    kind = _Sendmail if settings.submission == "sendmail" else _Connection
    numbers = count()
    lock = threading.Lock()

    def session() -> None:
        connection: _Connection | _Sendmail | None = None
        on_this = 0
        while True:
            with lock:
                number = next(numbers)
            if number >= settings.messages:
                break
            deadline = time.monotonic() + settings.patience
            while True:
                try:
                    if connection is None:
                        connection, on_this = kind(settings), 0
                    connection.send(number)
                    break
                except (OSError, Refused) as error:
                    with lock:
                        account.refused[str(error)[:60]] += 1
                        if connection and connection.sent_whole and not isinstance(error, Refused):
                            account.unanswered += 1
                    if connection is not None:
                        connection.close()
                        connection = None
                    if time.monotonic() > deadline:
                        with lock:
                            account.given_up += 1
                        return
                    time.sleep(_PAUSE)
            with lock:
                account.accepted += 1
            on_this += 1
            if on_this >= settings.per_connection:
                connection.quit()
                connection = None
        if connection is not None:
            connection.quit()

    threads = [threading.Thread(target=session) for _ in range(settings.sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return account


def main() -> None:
    settings = Settings(**json.loads(sys.argv[1]))
    if settings.submission == "sendmail":
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.monotonic()
    account = send_all(settings)
    end = time.monotonic()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                **account.to_json(),
                "begin": begin,
                "end": end,
                "cpu": usage.ru_utime + usage.ru_stime,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
