"""How a command talks to the running lab: one JSON line each way over a Unix socket.

The socket is the lab's only door from outside. Whoever connects also learns the supervisor's
process id, from the kernel (SO_PEERCRED), in the caller's own process-id namespace.
"""

import json
import socket
import socketserver
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Handler = Callable[..., Any]


class LabError(Exception):
    """Something the lab was asked to do did not work; the text says what and what to do."""


class NotRunning(LabError):
    """No lab answers at the control socket."""


class ControlServer(socketserver.ThreadingUnixStreamServer):
    """Serves ``operations``: name to a callable of keyword arguments that returns JSON data.

    An exception inside an operation goes back to the caller as its text; the lab goes on.
    """

    daemon_threads = True

    def __init__(self, *, path: Path, operations: Mapping[str, Handler]) -> None:
        self.operations = operations
        path.unlink(missing_ok=True)
        super().__init__(str(path), _Request)
        path.chmod(0o600)


class _Request(socketserver.StreamRequestHandler):
    server: ControlServer

    def handle(self) -> None:
        line = self.rfile.readline()
        if not line:
            return  # who only wanted to know whether somebody is there
        request = json.loads(line)
        try:
            answer = {
                "result": self.server.operations[request["operation"]](**request["arguments"])
            }
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


def ask(path: Path, operation: str, **arguments: Any) -> Any:
    """The result of an operation, however long that takes; raises NotRunning or LabError."""
    with _connect(path) as connection, connection.makefile("rwb") as stream:
        stream.write(json.dumps({"operation": operation, "arguments": arguments}).encode() + b"\n")
        stream.flush()
        line = stream.readline()
    if not line:
        raise LabError(f"the lab ended while it was asked to {operation}")
    answer = json.loads(line)
    if "error" in answer:
        raise LabError(answer["error"])
    return answer["result"]


def supervisor_pid(path: Path) -> int:
    """The supervisor's process id as this process sees it; raises NotRunning."""
    with _connect(path) as connection:
        credentials = connection.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
    pid, _, _ = struct.unpack("3i", credentials)
    return int(pid)


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        connection.close()
        raise NotRunning("No lab is running: start one with `postern lab up`.") from error
    except PermissionError as error:
        connection.close()
        raise LabError("The lab belongs to root: run this as root.") from error
    return connection
