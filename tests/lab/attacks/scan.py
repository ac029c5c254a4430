"""Finds what answers at a host's TCP ports, every one of them, in a few seconds.

A SYN scan (RFC 9293 section 3.5): a SYN to each port, and SYN-ACK, RST or silence as the answer.
Connecting to 65,535 ports would wait for each one that keeps silent.
"""

import select
import socket
import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address

PORTS = range(1, 65536)

_SOURCE_PORT = 40000
_BURST = 50  # so many, and their answers, fit into a socket's buffer
_QUIET_SECONDS = 0.5
_ROUNDS = 5  # any packet may get lost, so a port that keeps silent is tried again
_SYN, _RST, _SYN_ACK = 0x02, 0x04, 0x12
_HEADER = struct.Struct("!HHIIBBHHH")


@dataclass
class Answers:
    """The ports by what they answered; a port that kept silent is in neither."""

    open: set[int] = field(default_factory=set)
    closed: set[int] = field(default_factory=set)


def scan(target: str) -> Answers:
    """Scan every port of `target` from the calling thread's network namespace, as root.

    Raises:
        OSError: there is no route to it.
    """
    answers = Answers()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.connect((target, 0))
        source = raw.getsockname()[0]
        for _ in range(_ROUNDS):
            silent = sorted({*PORTS} - answers.open - answers.closed)
            for first in range(0, len(silent), _BURST):
                for port in silent[first : first + _BURST]:
                    raw.send(_syn(source, target, port))
                _collect(raw, answers, seconds=0)
            if silent:
                _collect(raw, answers, seconds=_QUIET_SECONDS)
    return answers


def _collect(raw: socket.socket, answers: Answers, *, seconds: float) -> None:
    """Sort what arrived, until nothing has for `seconds`."""
    while select.select([raw], [], [], seconds)[0]:
        packet = raw.recv(4096)
        segment = packet[(packet[0] & 15) * 4 :]
        port, to, _, _, _, flags, *_ = _HEADER.unpack_from(segment)
        if to != _SOURCE_PORT:
            continue
        if flags & _SYN_ACK == _SYN_ACK:
            answers.open.add(port)
        elif flags & _RST:
            answers.closed.add(port)


def _syn(source: str, target: str, port: int) -> bytes:
    pseudo = IPv4Address(source).packed + IPv4Address(target).packed
    pseudo += struct.pack("!HH", socket.IPPROTO_TCP, _HEADER.size)
    fields = [_SOURCE_PORT, port, 0, 0, (_HEADER.size // 4) << 4, _SYN, 1024, 0, 0]
    total = sum(struct.unpack("!16H", pseudo + _HEADER.pack(*fields)))
    total = (total & 0xFFFF) + (total >> 16)
    fields[7] = 0xFFFF - ((total & 0xFFFF) + (total >> 16))
    return _HEADER.pack(*fields)
