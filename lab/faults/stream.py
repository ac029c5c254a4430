"""A stream of messages with unique ids, submitted on the mail host and accounted for outside it."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.control import LabError
from lab.lab import Lab

_PROGRAM = Path(__file__).with_name("submit.py")
_SESSIONS = 10
_DOMAINS = 10
_OCTETS = 2000


class Stream:
    """`messages` messages over about `seconds`, each submitted again until it was accepted.

    As a context it starts to submit, and at its end waits until everything was accepted. When the
    host goes away in between, `go_on` continues on its successor.
    """

    def __init__(self, lab: Lab, *, messages: int, seconds: float, patience: float = 300) -> None:
        """`patience` is how many seconds the end of the context waits for the last acceptance."""
        self.run = uuid.uuid4().hex[:8]
        self.accepted: dict[str, float] = {}
        """Message-ID of each accepted message, and when (seconds since the epoch)."""
        self.unanswered: Counter[str] = Counter()
        """How many attempts at a Message-ID had no answer, so that the application tried again."""
        self.refusals: Counter[str] = Counter()
        """The MTA's words when it refused for the moment, and how often."""
        self._lab = lab
        self._messages = messages
        self.seconds = seconds
        """How long the whole stream takes if nothing hinders it; set before it begins."""
        self._patience = patience
        self._program: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def sender(self) -> str:
        """The envelope sender and From: address."""
        return f"stream@{self._lab.environment.sending_domain}"

    def __enter__(self) -> Self:
        self.go_on()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._finish()
        self._stop()

    @property
    def share(self) -> float:
        """How much of the stream was accepted, from 0 to 1."""
        return len(self.accepted) / self._messages

    def go_on(self) -> None:
        """Submit what was not accepted yet, on the host that runs now."""
        self._stop()
        missing = [
            number for number in range(self._messages) if self._id(number) not in self.accepted
        ]
        settings = {
            "numbers": missing,
            "run": self.run,
            "seconds": self.seconds * len(missing) / self._messages,
            "sessions": _SESSIONS,
            "domains": _DOMAINS,
            "octets": _OCTETS,
            "sender": self.sender,
            # Names that no resolver can remember from an earlier run.
            "recipient": "u{number}@d{domain}." + self.run + ".sinkhole.example",
            "message_id": self._id_template,
        }
        self._program = subprocess.Popen(
            self._lab.host_command(
                "python3", "-u", "-c", _PROGRAM.read_text(), json.dumps(settings)
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=[self._program], daemon=True)
        self._reader.start()

    def wait_until(self, *, share: float, timeout: float = 120) -> None:
        """Return when this share of the messages (0 to 1) was accepted; raises LabError."""
        deadline = time.monotonic() + timeout
        while self.share < share:
            if time.monotonic() > deadline:
                raise LabError(
                    f"{len(self.accepted)} of {self._messages} messages were accepted within "
                    f"{timeout:.0f} s, fewer than the {share:.0%} waited for. Refusals: "
                    f"{dict(self.refusals)}"
                )
            time.sleep(0.05)

    def wait_for_refusals(self, count: int, *, timeout: float = 120) -> None:
        """Return when so many attempts were refused for the moment; raises LabError."""
        deadline = time.monotonic() + timeout
        while (refused := sum(self.refusals.values())) < count:
            if time.monotonic() > deadline:
                raise LabError(f"{refused} attempts were refused within {timeout:.0f} s.")
            time.sleep(0.05)

    @property
    def _id_template(self) -> str:
        return "<{number}.{run}@" + self._lab.environment.sending_domain + ">"

    def _id(self, number: int) -> str:
        return self._id_template.format(number=number, run=self.run)

    def _read(self, program: subprocess.Popen[str]) -> None:
        assert program.stdout is not None
        for line in program.stdout:
            event, number, *words = line.rstrip("\n").split(" ", 2)
            match event:
                case "accepted":
                    self.accepted[self._id(int(number))] = time.time()
                case "unanswered":
                    self.unanswered[self._id(int(number))] += 1
                case "refused":
                    self.refusals[" ".join(words)] += 1

    def _finish(self) -> None:
        assert self._reader is not None
        self._reader.join(self._patience)
        self.wait_until(share=1, timeout=0)

    def _stop(self) -> None:
        if self._program is not None:
            assert self._program.stdin is not None
            self._program.stdin.close()  # which ends it, also inside the host
            self._program.wait()
            assert self._reader is not None
            self._reader.join()
            self._program = None
