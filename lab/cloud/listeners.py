"""What a process listens on, read from /proc."""

import ipaddress
import re
from pathlib import Path

_LISTEN = "0A"  # TCP_LISTEN of the kernel's include/net/tcp_states.h
_UNCONNECTED = "07"  # what a bound UDP socket shows


def listening_addresses(pid: int) -> set[str]:
    """``address:port`` of every TCP listener and bound UDP socket of the process."""
    inodes = _socket_inodes(pid)
    found = set()
    for protocol, state in (("tcp", _LISTEN), ("udp", _UNCONNECTED)):
        for table in (f"{protocol}", f"{protocol}6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == state and fields[9] in inodes:
                    host, port = fields[1].split(":")
                    found.add(f"{_address(host)}:{int(port, 16)}")
    return found


def exposed_addresses(pid: int) -> set[str]:
    """Those of `listening_addresses` that are reachable from outside this machine."""
    return {
        address
        for address in listening_addresses(pid)
        if not ipaddress.ip_address(address.rpartition(":")[0]).is_loopback
    }


def _socket_inodes(pid: int) -> set[str]:
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:  # closed since it was listed
            continue
        if match := re.fullmatch(r"socket:\[(\d+)\]", target):
            inodes.add(match[1])
    return inodes


def _address(hexadecimal: str) -> str:
    """The kernel writes addresses as 32-bit words in the machine's byte order (little endian)."""
    words = [hexadecimal[start : start + 8] for start in range(0, len(hexadecimal), 8)]
    packed = b"".join(bytes.fromhex(word)[::-1] for word in words)
    return str(ipaddress.ip_address(packed))
