"""The receiver of everything: takes mail as cheaply as it can, counts it, and keeps a sample.

A program: `python3 -m bench.sink ADDRESS...` listens on port 25 of these. It is told what to do by
lines of JSON on standard input and answers each with one on standard output; `bench.receiver` is
the other end. It ends when standard input does.

Its network has no delay, so a round trip is imitated: every reply is held for that long. What a
client sends in one go (RFC 2920, pipelining) is answered in one go.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

# Message-ID: <17.RUN@sending.domain>, which every message of a bench has, and its signature covers.
_MESSAGE_ID = re.compile(rb"^message-id:\s*<(\d+)\.(\w+)@", re.IGNORECASE | re.MULTILINE)
_EHLO = (
    b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 52428800\r\n"
    b"250 ENHANCEDSTATUSCODES\r\n"
)
_DOT = b".\r\n"
_END = b"\r\n" + _DOT


@dataclass
class Count:
    """What came in since it was last begun anew."""

    run: str = ""
    """Messages of other runs are counted as strangers."""
    expected: int = 0
    sample_every: int = 0
    """One message in so many is kept, as a file named after its number; 0 is none."""
    sample: Path | None = None
    delay: float = 0.0
    """Seconds for which each reply is held: a round trip."""
    hold: float = 0.0
    """Seconds for which the reply to a whole message is held besides."""
    times: dict[int, int] = field(default_factory=dict)
    """Number of a message to how often it came."""
    strangers: int = 0
    connections: int = 0
    first: float = 0.0
    last: float = 0.0
    """When the first and the last new message was accepted (CLOCK_MONOTONIC)."""

    def take(self, content: bytes, now: float) -> None:
        """Count a message, as it came over the wire, that is accepted at this time."""
        found = _MESSAGE_ID.search(content[:16384])
        if found is None or found[2].decode() != self.run:
            self.strangers += 1
            return
        number = int(found[1])
        seen = self.times.get(number, 0)
        self.times[number] = seen + 1
        if seen:
            return
        self.first = self.first or now
        self.last = now
        if self.sample and self.sample_every and number % self.sample_every == 0:
            (self.sample / str(number)).write_bytes(content)

    @property
    def complete(self) -> bool:
        return len(self.times) >= self.expected

    def report(self) -> dict[str, Any]:
        """The account, as JSON."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "distinct": len(self.times),
            "doubled": sum(count - 1 for count in self.times.values()),
            "outside": sum(not 0 <= number < self.expected for number in self.times),
            "strangers": self.strangers,
            "connections": self.connections,
            "first": self.first,
            "last": self.last,
            "cpu": usage.ru_utime + usage.ru_stime,
        }


class Session(asyncio.Protocol):
    """One connection of a client, RFC 5321's commands and no more."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = bytearray()
        self._in_data = False
        self._searched = 0  # so far there is no end of data in the buffer
        # What is to be done and when, in order: no reply overtakes another.
        self._pending: deque[tuple[float, Callable[[], None]]] = deque()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._sink.count.connections += 1
        # A round trip for the connection itself, which this network makes in no time.
        self._reply(b"220 sink ESMTP\r\n", self._sink.count.delay)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        replies = bytearray()
        held = self._sink.count.delay
        closing = False
        while True:
            if self._in_data:
                end = self._end_of_data()
                if end is None:
                    break
                content = bytes(self._buffer[:end])
                del self._buffer[: end + len(_DOT)]
                self._in_data = False
                held = self._sink.count.delay + self._sink.count.hold
                self._later(held, partial(self._sink.take, content))
                replies += b"250 2.0.0 taken\r\n"
                continue
            line, separator, _ = self._buffer.partition(b"\n")
            if not separator:
                break
            del self._buffer[: len(line) + 1]
            reply, closing = self._command(bytes(line).strip())
            replies += reply
            if closing:
                break
        if replies:
            self._reply(bytes(replies), held, closing=closing)

    def eof_received(self) -> bool:
        """The client says no more, as Exim does after QUIT; what it is owed it still gets."""
        self._reply(b"", 0.0, closing=True)
        return True

    def _end_of_data(self) -> int | None:
        """Where the content in the buffer ends, the final line break included; None: not yet."""
        if self._buffer.startswith(_DOT):
            return 0
        found = self._buffer.find(_END, max(0, self._searched))
        self._searched = max(0, len(self._buffer) - len(_END)) if found < 0 else 0
        return None if found < 0 else found + 2

    def _command(self, line: bytes) -> tuple[bytes, bool]:
        """The reply to a command, and whether the connection ends with it."""
        match line[:4].upper():
            case b"EHLO":
                return _EHLO, False
            case b"HELO" | b"RSET" | b"NOOP" | b"MAIL" | b"RCPT":
                return b"250 2.0.0 ok\r\n", False
            case b"DATA":
                self._in_data = True
                self._searched = 0
                return b"354 go on\r\n", False
            case b"QUIT":
                return b"221 2.0.0 bye\r\n", True
        return b"500 5.5.1 unknown\r\n", False

    def _reply(self, text: bytes, held: float, *, closing: bool = False) -> None:
        self._later(held, partial(self._write, text, closing))

    def _write(self, text: bytes, closing: bool) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            if text:
                self._transport.write(text)
            if closing:
                self._transport.close()

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if not self._pending:
            if not seconds:
                action()
                return
            loop.call_at(due, self._act)
        self._pending.append((due, action))

    def _act(self) -> None:
        """Do what is due: the first of what is pending, and what follows it and is due by then."""
        loop = asyncio.get_running_loop()
        due = self._pending[0][0]
        while self._pending and self._pending[0][0] <= due:
            self._pending.popleft()[1]()
        if self._pending:
            loop.call_at(self._pending[0][0], self._act)


class Sink:
    """The servers, and what their sessions count into."""

    def __init__(self, addresses: list[str], port: int = 25) -> None:
        self._addresses = addresses
        self._port = port
        self._server: asyncio.Server | None = None
        self._completed = asyncio.Event()
        self.count = Count()

    def take(self, content: bytes) -> None:
        self.count.take(content, time.monotonic())
        if self.count.complete:
            self._completed.set()

    async def open(self) -> None:
        """Accept connections."""
        if self._server is None:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Session(self), self._addresses, self._port, backlog=1024
            )

    async def close(self) -> None:
        """Refuse connections; those that there are go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    @property
    def ports(self) -> list[int]:
        """The ports it listens on, for a sink that was given port 0."""
        assert self._server is not None
        return [socket.getsockname()[1] for socket in self._server.sockets]

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do what `bench.receiver` asks for, and answer it."""
        match order.pop("do"):
            case "begin":
                sample = order.pop("sample", None)
                self.count = Count(**order, sample=Path(sample) if sample else None)
                self._completed.clear()
            case "wait":
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._completed.wait(), order["seconds"])
            case "open":
                await self.open()
            case "close":
                await self.close()
        return self.count.report()


async def _main(addresses: list[str]) -> None:
    sink = Sink(addresses)
    await sink.open()
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        print(json.dumps(await sink.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
