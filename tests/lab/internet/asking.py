"""A DNS client in one of the lab's network namespaces."""

import socket
import time

import dns.exception
import dns.message
import dns.query
import dns.rdatatype

from lab.network.namespace import entered
from tests.lab.waiting import PATIENCE_SECONDS

SILENCE_SECONDS = 1.0  # without an answer for so long, none is on its way

_AGAIN_SECONDS = 10.0


def ask(
    name: str,
    kind: dns.rdatatype.RdataType,
    *,
    namespace: str,
    server: str,
    timeout: float = PATIENCE_SECONDS,
) -> dns.message.Message:
    """The answer over UDP. Datagrams get lost, so the question is repeated until `timeout`.

    Raises:
        dns.exception.Timeout: none came.
    """
    query = dns.message.make_query(name, kind)
    deadline = time.monotonic() + timeout
    with entered(namespace):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.setblocking(False)
        while True:
            remaining = deadline - time.monotonic()
            try:
                # A late answer to an earlier repetition is as good.
                return dns.query.udp(
                    query, server, timeout=min(remaining, _AGAIN_SECONDS), sock=client
                )
            except dns.exception.Timeout:
                if time.monotonic() >= deadline:
                    raise


def ask_over_tcp(
    name: str, kind: dns.rdatatype.RdataType, *, namespace: str, server: str
) -> dns.message.Message:
    """The answer over TCP."""
    with entered(namespace):
        client = socket.create_connection((server, 53), timeout=PATIENCE_SECONDS)
    with client:
        client.setblocking(False)
        return dns.query.tcp(
            dns.message.make_query(name, kind), "", timeout=PATIENCE_SECONDS, sock=client
        )
