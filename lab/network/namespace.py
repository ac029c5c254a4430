"""Named network namespaces: run commands in them, open sockets in them."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

DIRECTORY = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def entered(name: str, *, directory: Path = DIRECTORY) -> Iterator[None]:
    """Move the calling thread into the network namespace `name` of `directory`, and back.

    A socket stays in the namespace it was opened in, so one process can listen in one namespace
    and connect from another. Other threads are not moved. (`os.setns` is Python 3.12's.)
    """
    with Path("/proc/thread-self/ns/net").open() as home, (directory / name).open() as target:
        _set_namespace(target.fileno())
        try:
            yield
        finally:
            _set_namespace(home.fileno())


def listening_socket(name: str, address: str, port: int) -> socket.socket:
    """A TCP socket that listens in the network namespace `name`, for a server anywhere."""
    with entered(name):
        return socket.create_server((address, port))


def command_in(name: str, argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` in the network namespace `name`."""
    return ["nsenter", f"--net={DIRECTORY / name}", *argv]


def run_in(name: str, argv: Sequence[str], script: str = "") -> None:
    """Run `argv` in the network namespace `name`, with `script` as its standard input.

    Raises:
        subprocess.CalledProcessError: it failed; the error's `stderr` says why.
    """
    subprocess.run(command_in(name, argv), check=True, input=script, capture_output=True, text=True)


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
