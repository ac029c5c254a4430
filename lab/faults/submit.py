"""Runs on the mail host as its application would: submits messages until each was accepted.

    python3 submit.py '{"numbers": [...], "run": ..., ...}'      (see `stream.Stream`)

Prints a line for each event, at once: ``accepted NUMBER``, ``refused NUMBER REPLY`` (the message is
tried again), ``unanswered NUMBER`` (the connection broke after the message was sent, so that nobody
knows; it is sent again and may arrive twice). Ends when every message was accepted.
"""

import json
import os
import queue
import smtplib
import subprocess
import sys
import threading
import time
from typing import Any

MESSAGE = """\
From: Stream <{sender}>\r
To: {recipient}\r
Subject: Message {number} of {run}\r
Message-ID: {message_id}\r
\r
{body}"""
LINE = "The quick brown fox jumps over the lazy dog, and over it again and again.\r\n"
PAUSE_SECONDS = 0.5  # after a refusal


def main() -> None:
    settings = json.loads(sys.argv[1])
    threading.Thread(target=end_with_stdin, daemon=True).start()
    numbers: queue.Queue[int] = queue.Queue()
    threading.Thread(target=pace, args=(numbers, settings), daemon=True).start()
    sessions = [
        threading.Thread(target=submit, args=(numbers, settings))
        for _ in range(settings["sessions"])
    ]
    for session in sessions:
        session.start()
    for session in sessions:
        session.join()


def end_with_stdin() -> None:
    """End when nobody counts any more: then no more may be sent."""
    os.read(0, 1)  # unbuffered: a buffer's lock would not be free when Python ends
    os._exit(0)


def pace(numbers: "queue.Queue[int]", settings: dict[str, Any]) -> None:
    """Offer the messages evenly over the wanted time, then as many ends as there are sessions."""
    began, total = time.monotonic(), len(settings["numbers"])
    for position, number in enumerate(settings["numbers"]):
        due = began + settings["seconds"] * position / total
        time.sleep(max(0.0, due - time.monotonic()))
        numbers.put(number)
    for _ in range(settings["sessions"]):
        numbers.put(-1)


def submit(numbers: "queue.Queue[int]", settings: dict[str, Any]) -> None:
    session = Session()
    while (number := numbers.get()) >= 0:
        message_id = settings["message_id"].format(run=settings["run"], number=number)
        recipient = settings["recipient"].format(number=number, domain=number % settings["domains"])
        text = MESSAGE.format(
            sender=settings["sender"],
            recipient=recipient,
            number=number,
            run=settings["run"],
            message_id=message_id,
            body=LINE * (settings["octets"] // len(LINE)),
        ).encode()
        send = session.by_smtp if number % 10 else by_command
        while event := send(settings["sender"], recipient, text):
            say(event.replace("*", str(number), 1))
            time.sleep(PAUSE_SECONDS)
        say(f"accepted {number}")
    session.close()


class Session:
    """An SMTP connection to the MTA, opened again when it broke."""

    def __init__(self) -> None:
        self.smtp: smtplib.SMTP | None = None

    def by_smtp(self, sender: str, recipient: str, text: bytes) -> str:
        """Submit one message; returns the event of its refusal, "" when it was accepted."""
        in_flight = False
        try:
            if self.smtp is None:
                self.smtp = smtplib.SMTP("127.0.0.1", 587, timeout=120)
            self.smtp.ehlo_or_helo_if_needed()
            for command in (f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>"):
                code, reply = self.smtp.docmd(command)
                if code != 250:
                    return self.refused(code, reply)
            in_flight = True
            code, reply = self.smtp.data(text)
        except smtplib.SMTPResponseException as refusal:
            return self.refused(refusal.smtp_code, refusal.smtp_error)
        except (OSError, smtplib.SMTPException) as error:
            self.smtp = None
            return "unanswered *" if in_flight else f"refused * {error}"
        return "" if code == 250 else self.refused(code, reply)

    def refused(self, code: int, reply: bytes | str) -> str:
        self.close()
        words = reply if isinstance(reply, str) else reply.decode(errors="replace")
        return f"refused * {code} {words}".replace("\n", " ")

    def close(self) -> None:
        if self.smtp is not None:
            self.smtp.close()
            self.smtp = None


def by_command(sender: str, recipient: str, text: bytes) -> str:  # noqa: ARG001 - as by_smtp
    """Submit one message with `sendmail -t`; returns the event of its refusal."""
    done = subprocess.run(
        ["/usr/sbin/sendmail", "-t", "-oi", "-f", sender],
        check=False,
        input=text.replace(b"\r\n", b"\n"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode == 0:
        return ""
    words = done.stdout.decode(errors="replace").replace("\n", " ")
    return f"refused * sendmail -t ended with status {done.returncode}: {words}"


def say(event: str) -> None:
    with SAYING:
        print(event, flush=True)


SAYING = threading.Lock()

if __name__ == "__main__":
    main()
