"""One long-running program of the lab's Internet: started, waited for, stopped."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from lab.network.namespace import entered

_READY_TIMEOUT = 20.0
# Nothing here has anything to save, and a milter looks only every 5 s whether it has to stop.
_STOP_TIMEOUT = 1.0


class InternetError(Exception):
    """A part of the lab's Internet does not work; the text says which, and where its log is."""


class Service:
    """A program with its log file, ready when it accepts connections."""

    def __init__(
        self,
        *,
        name: str,
        command: Sequence[str],
        namespace: str,
        log: Path,
        listens: Sequence[tuple[str, int]] = (),
    ) -> None:
        """Describe a program; nothing runs yet.

        `command` is what to run, `nsenter` included where it has to be inside. `listens` are the
        addresses and TCP ports, inside `namespace`, at which it answers when it is ready.
        """
        self.name = name
        self._command = list(command)
        self._namespace = namespace
        self._log = log
        self._listens = list(listens)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, without waiting until it is ready."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # to be ended as a whole, and not by a Ctrl-C
            )

    def wait_until_ready(self) -> None:
        """Return when it accepts connections everywhere it listens.

        Raises:
            InternetError: it ended, or did not get there within 20 s.
        """
        for address, port in self._listens:
            self.wait_until(partial(self._accepts, address, port))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds, asking 50 times a second.

        Raises:
            InternetError: the program ended, or 20 s passed.
        """
        deadline = time.monotonic() + _READY_TIMEOUT
        while not condition():
            if not self.running:
                raise InternetError(f"{self.name} ended.\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise InternetError(f"{self.name} is not ready.\n{self._last_words()}")
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        """Send a signal, such as SIGHUP."""
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """End it with its children, politely first; nothing happens when it does not run."""
        if self._process is None:
            return
        group = self._process.pid
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(group, number)
                self._process.wait(_STOP_TIMEOUT)
        self._process = None

    def _accepts(self, address: str, port: int) -> bool:
        try:
            with entered(self._namespace), socket.create_connection((address, port), timeout=1):
                return True
        except OSError:
            return False

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-10:]
        return "\n".join([f"The end of {self._log}:", *lines])


class Stoppable(Protocol):
    """Anything that `stop_together` takes."""

    def stop(self) -> None:
        """Return when it has ended."""


def stop_together(servers: Sequence[Stoppable]) -> None:
    """Stop all of `servers` at the same time; return when all have ended."""
    with ThreadPoolExecutor(max_workers=len(servers)) as executor:
        for stopped in [executor.submit(server.stop) for server in servers]:
            stopped.result()
