"""The way to AWS's APIs, in order and out of order."""

import asyncio
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lab.internet.aws_front import serve, service_of, write_faults
from lab.internet.certificates import CertificateAuthority
from tests.lab.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.lab

DOMAIN = "us-east-1.amazonaws.com"


class _Echo(BaseHTTPRequestHandler):
    """In the emulator's place: answers with the request's own Host header and body."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.headers["Host"].encode() + b" " + body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        pass


@contextmanager
def _upstream() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


class Front:
    """The running front, its file of faults, and a client."""

    def __init__(self, port: int, faults: Path, authority: Path) -> None:
        self.faults = faults
        self._port = port
        self._tls = ssl.create_default_context(cafile=str(authority))
        self._tls.check_hostname = False  # the test has no name for its address

    def ask(self, service: str, *, timeout: float = PATIENCE_SECONDS) -> tuple[int, bytes]:
        """Status and body of a request to a service."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, context=self._tls, timeout=timeout
        )
        try:
            connection.request("POST", "/", b"asked", {"Host": f"{service}.{DOMAIN}"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    authority = CertificateAuthority(tmp_path / "tls")
    issued = authority.issue(f"*.{DOMAIN}")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(issued.certificate, issued.key)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    faults = tmp_path / "faults.json"
    loop = asyncio.new_event_loop()
    with _upstream() as upstream_port:
        serving = loop.create_task(serve(listener, tls, upstream_port, faults))
        thread = threading.Thread(target=_run_until_cancelled, args=[loop, serving])
        thread.start()
        yield Front(port, faults, authority.certificate)
        loop.call_soon_threadsafe(serving.cancel)
        thread.join()
    loop.close()


def _run_until_cancelled(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    loop.run_until_complete(asyncio.wait([task]))
    loop.run_until_complete(loop.shutdown_asyncgens())


def test_a_request_arrives_as_it_was_sent(front: Front) -> None:
    assert front.ask("sts") == (200, f"sts.{DOMAIN} asked".encode())


def test_a_service_that_is_away_takes_no_other_with_it(front: Front) -> None:
    write_faults(front.faults, {"secretsmanager": "hangs"})

    with pytest.raises(TimeoutError):
        front.ask("secretsmanager", timeout=0.5)
    assert front.ask("sts")[0] == 200


def test_a_refused_service_resets_its_connections(front: Front) -> None:
    write_faults(front.faults, {"secretsmanager": "resets"})

    # The second, when the reset comes in between its header and its body.
    with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
        front.ask("secretsmanager")


def test_a_service_with_errors_answers_503(front: Front) -> None:
    write_faults(front.faults, {"secretsmanager": "errors"})

    assert front.ask("secretsmanager") == (503, b"")


def test_an_outage_ends_when_it_is_told_to(front: Front) -> None:
    write_faults(front.faults, {"secretsmanager": "errors"})
    write_faults(front.faults, {})

    assert front.ask("secretsmanager")[0] == 200


def test_a_word_that_means_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="slow: there are hangs, resets, errors"):
        write_faults(tmp_path / "faults.json", {"sts": "slow"})


@pytest.mark.parametrize(
    ("host", "service"),
    [
        ("secretsmanager.us-east-1.amazonaws.com", "secretsmanager"),
        ("bucket.s3.us-east-1.amazonaws.com:443", "s3"),
        ("localhost", ""),
    ],
)
def test_a_service_is_known_by_its_host_name(host: str, service: str) -> None:
    assert service_of(f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()) == service
