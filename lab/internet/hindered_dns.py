"""DNS that answers late, or that something is wrong; stands in nsd's place while a fault lasts.

Runs inside the `internet` namespace on behalf of `name_server.NameServer`, over UDP and TCP:

    python -m lab.internet.hindered_dns {slow|servfail} ADDRESS PORT_OF_NSD

It listens at port 53 of ADDRESS. A thread for each query lets many wait at the same time.
"""

import socketserver
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import dns.message
import dns.query
import dns.rcode

DELAY_SECONDS = 3.0

_PORT = 53
_NSD_TIMEOUT = 10.0  # seconds; it answers at once, whatever the load

_Ask = Callable[..., dns.message.Message]
_Answer = Callable[[dns.message.Message, _Ask], dns.message.Message]


def answer_late(
    query: dns.message.Message, ask: _Ask, *, address: str, port: int
) -> dns.message.Message:
    """What nsd at `address` and `port` says, `DELAY_SECONDS` later.

    `ask` is dnspython's function for the transport that the query came over.
    """
    time.sleep(DELAY_SECONDS)
    return ask(query, address, timeout=_NSD_TIMEOUT, port=port)


def answer_servfail(query: dns.message.Message, _ask: _Ask) -> dns.message.Message:
    """SERVFAIL, as of a server that cannot load its zones (RFC 1035 section 4.1.1)."""
    failure = dns.message.make_response(query)
    failure.set_rcode(dns.rcode.SERVFAIL)
    return failure


class _UdpServer(socketserver.ThreadingUDPServer):
    daemon_threads = True


class _TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


def _serve(answer: _Answer, address: str) -> None:
    class OverUdp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            octets, listener = self.request
            reply = answer(dns.message.from_wire(octets), dns.query.udp)
            listener.sendto(reply.to_wire(), self.client_address)

    class OverTcp(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            # Each message comes with its length before it (RFC 1035 section 4.2.2).
            while length := self.rfile.read(2):
                octets = self.rfile.read(int.from_bytes(length, "big"))
                reply = answer(dns.message.from_wire(octets), dns.query.tcp)
                self.wfile.write(reply.to_wire(prepend_length=True))

    # UDP first: who can connect over TCP may take it that both are there.
    with _UdpServer((address, _PORT), OverUdp) as udp, _TcpServer((address, _PORT), OverTcp) as tcp:
        threading.Thread(target=udp.serve_forever, daemon=True).start()
        tcp.serve_forever()


def main() -> None:
    """Serve until the process is ended."""
    fault, address, nsd_port = sys.argv[1:]
    answers: dict[str, _Answer] = {
        "slow": partial(answer_late, address=address, port=int(nsd_port)),
        "servfail": answer_servfail,
    }
    _serve(answers[fault], address)


if __name__ == "__main__":
    main()
