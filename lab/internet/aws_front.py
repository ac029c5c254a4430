"""The TLS end of the emulated AWS APIs: what their names resolve to in the lab.

The emulator speaks plain HTTP on this machine's loopback, which the lab's namespaces cannot
reach. This process listens inside one and connects from outside, so it is the only passage. Bytes
are relayed as they come, so the Host header and the signature over it stay what the client sent.

    python -m lab.internet.aws_front NAMESPACE ADDRESS PORT UPSTREAM_PORT CERTIFICATE KEY FAULTS

FAULTS is a file that `write_faults` writes; each new connection looks into it.
"""

import asyncio
import json
import socket
import ssl
import struct
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from lab.internet.addresses import GLOBAL_APIS
from lab.network.namespace import entered

FAULTS = {
    "hangs": "takes a request and never answers",
    "resets": "resets the connection once the client said which service it wants",
    "errors": "answers with HTTP status 503, as an API that is overloaded or out of order",
}

_CHUNK = 64 * 1024
_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
# on, for 0 seconds: closing such a socket resets its connection (socket(7), SO_LINGER)
_NO_LINGERING = struct.pack("ii", 1, 0)


def write_faults(file: Path, faults: Mapping[str, str]) -> None:
    """Let the services named in `faults` fail, each in the way of its word from `FAULTS`.

    Raises:
        ValueError: there is no such word.
    """
    if unknown := sorted(set(faults.values()) - FAULTS.keys()):
        raise ValueError(f"{', '.join(unknown)}: there are {', '.join(FAULTS)}")
    unfinished = file.with_suffix(".new")
    unfinished.write_text(json.dumps(dict(faults)))
    unfinished.replace(file)


def service_of(head: bytes) -> str:
    """The service that an HTTP request is for, by its Host header; empty when it has none.

    "secretsmanager" of secretsmanager.REGION.amazonaws.com, "s3" of BUCKET.s3.REGION.amazonaws.com,
    "sts" of sts.amazonaws.com.
    """
    for line in head.decode("latin-1").splitlines()[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "host":
            labels = value.strip().split(":")[0].split(".")
            if len(labels) >= 3 and labels[-3] in GLOBAL_APIS:
                return labels[-3]
            return labels[-4] if len(labels) >= 4 else ""
    return ""


async def serve(
    listener: socket.socket, tls: ssl.SSLContext, upstream_port: int, faults: Path
) -> None:
    """Relay every connection to 127.0.0.1:`upstream_port`, until cancelled."""
    answer = partial(_answer, upstream_port, faults)
    server = await asyncio.start_server(answer, sock=listener, ssl=tls, limit=_CHUNK)
    async with server:
        await server.serve_forever()


async def _answer(
    upstream_port: int, faults: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    with suppress(OSError), closing(writer):  # either end may hang up whenever it likes
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:  # who only wanted to know whether somebody listens
            return
        match _faults(faults).get(service_of(head)):
            case "hangs":
                await _read_to_the_end(reader)
            case "resets":
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
                writer.transport.abort()
            case "errors":
                writer.write(_UNAVAILABLE)
                # Closing on a request that was not read would reset the connection.
                await _read_to_the_end(reader)
            case _:
                await _relay(upstream_port, head, reader, writer)


async def _relay(
    upstream_port: int, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", upstream_port)
    upstream_writer.write(head)
    await asyncio.gather(_copy(reader, upstream_writer), _copy(upstream_reader, writer))


async def _read_to_the_end(reader: asyncio.StreamReader) -> None:
    while await reader.read(_CHUNK):
        pass


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Relay one direction to its end, then close the other side: TLS knows no half-closing."""
    with closing(writer):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()  # no more is held here than the slower side can take


def _faults(file: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(file.read_text())
    except FileNotFoundError:  # none were ever asked for
        return {}
    return found


def main() -> None:
    """Serve until the process is ended."""
    namespace, address, port, upstream_port, certificate, key, faults = sys.argv[1:]
    with entered(namespace):
        listener = socket.create_server((address, int(port)), backlog=512)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    asyncio.run(serve(listener, tls, int(upstream_port), Path(faults)))


if __name__ == "__main__":
    main()
