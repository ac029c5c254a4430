"""The application sends every message, once as far as it can know."""

import email
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.source import Settings, message, send_all


def settings(**changes: object) -> Settings:
    fields: dict[str, object] = {
        "run": "r1",
        "messages": 10,
        "octets": 10240,
        "domains": 200,
        "sending_domain": "mail.example.com",
        "sessions": 3,
        "patience": 5,
    }
    return Settings(**{**fields, **changes})  # type: ignore[arg-type]


def test_every_line_ends_with_crlf_however_long_the_header_is() -> None:
    for octets in range(10240, 10340):
        text = message(settings(octets=octets), 7)
        assert len(text) == octets
        assert text.count(b"\r") == text.count(b"\n") == text.count(b"\r\n")


@pytest.mark.parametrize("octets", [10240, 51200])
def test_a_message_has_the_size_that_was_asked_for(octets: int) -> None:
    text = message(settings(octets=octets), 7)
    assert len(text) == octets
    assert text.endswith(b"\r\n")
    assert not any(line.startswith(b".") for line in text.split(b"\r\n"))
    assert max(map(len, text.split(b"\r\n"))) < 998


def test_a_message_names_itself_and_its_recipient() -> None:
    parsed = email.message_from_bytes(message(settings(), 207))
    assert parsed["Message-ID"] == "<207.r1@mail.example.com>"
    assert parsed["To"] == "u207@d7.bench.example"
    big = email.message_from_bytes(message(settings(domains=1), 207))
    assert big["To"] == "u207@big.bench.example"


@contextmanager
def server(replies_to_data: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """A server that answers whole messages so, and 250 from then on; its port and what it got."""
    got: list[bytes] = []
    lock = threading.Lock()

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as stream:

            def say(text: bytes) -> None:
                stream.write(text)
                stream.flush()

            say(b"220 hello\r\n")
            while line := stream.readline():
                if line.startswith(b"DATA"):
                    say(b"354 go on\r\n")
                    content = b""
                    while (part := stream.readline()) != b".\r\n":
                        content += part
                    with lock:
                        reply = replies_to_data.pop(0) if replies_to_data else b"250 taken"
                        if reply.startswith(b"250"):
                            got.append(content)
                    if not reply:
                        return
                    say(reply + b"\r\n")
                elif line.startswith(b"QUIT"):
                    return
                else:
                    say(b"250-more\r\n250 fine\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=[connection], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1], got
        listening.shutdown(socket.SHUT_RDWR)


def test_every_message_is_sent_once() -> None:
    with server([]) as (port, got):
        account = send_all(settings(port=port, per_connection=2))
    assert (account.accepted, account.unanswered, account.given_up) == (10, 0, 0)
    ids = sorted(email.message_from_bytes(text)["Message-ID"] for text in got)
    assert ids == sorted(f"<{number}.r1@mail.example.com>" for number in range(10))


def test_what_is_refused_for_the_moment_is_sent_again() -> None:
    with server([b"451 later", b"452 full"]) as (port, got):
        account = send_all(settings(port=port))
    assert account.accepted == len(got) == 10
    assert dict(account.refused) == {"451 later": 1, "452 full": 1}
    assert json.loads(json.dumps(account.to_json()))["refused"] == account.refused
    assert account.unanswered == 0


def test_what_was_not_answered_is_told_since_it_may_come_twice() -> None:
    with server([b""]) as (port, _):
        account = send_all(settings(port=port))
    assert (account.accepted, account.unanswered) == (10, 1)
