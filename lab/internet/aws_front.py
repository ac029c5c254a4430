"""The TLS end of the emulated AWS APIs: what `*.REGION.amazonaws.com` resolves to in the lab.

The emulator speaks plain HTTP on this machine's loopback, which the lab's namespaces cannot
reach. This process listens inside one and connects from outside, so it is the only passage. Bytes
are relayed as they come, so the Host header and the signature over it stay what the client sent.

    python -m lab.internet.aws_front NAMESPACE ADDRESS PORT UPSTREAM_PORT CERTIFICATE KEY
"""

import asyncio
import socket
import ssl
import sys
from contextlib import closing, suppress

from lab.network.namespace import entered

_CHUNK = 64 * 1024


async def serve(listener: socket.socket, tls: ssl.SSLContext, upstream_port: int) -> None:
    """Relay every connection to 127.0.0.1:`upstream_port`, until cancelled."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError), closing(writer):  # either end may hang up whenever it likes
            upstream_reader, upstream_writer = await asyncio.open_connection(
                "127.0.0.1", upstream_port
            )
            await asyncio.gather(_copy(reader, upstream_writer), _copy(upstream_reader, writer))

    server = await asyncio.start_server(relay, sock=listener, ssl=tls, limit=_CHUNK)
    async with server:
        await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Relay one direction to its end, then close the other side: TLS knows no half-closing."""
    with closing(writer):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()  # no more is held here than the slower side can take


def main() -> None:
    """Serve until the process is ended."""
    namespace, address, port, upstream_port, certificate, key = sys.argv[1:]
    with entered(namespace):
        listener = socket.create_server((address, int(port)), backlog=512)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    asyncio.run(serve(listener, tls, int(upstream_port)))


if __name__ == "__main__":
    main()
