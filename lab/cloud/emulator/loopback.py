"""Keeps every listener of the emulator on the loopback interface.

ministack opens further listeners (MQTT, SFTP, a Postgres proxy) on all interfaces, some of them
only when a service is first used. Instead of knowing each one's switch, no socket of this process
may bind anything but loopback.
"""

import ipaddress
import sys


class ExposureError(PermissionError):
    """Something in the emulator tried to listen where others could reach it."""


def install() -> None:
    sys.addaudithook(refuse_other_interfaces)


def refuse_other_interfaces(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook of the interpreter; raises ExposureError."""
    if event != "socket.bind":
        return
    address = arguments[1]
    # A Unix socket's address is a path; only the Internet families' are tuples.
    if isinstance(address, tuple) and not _is_loopback(str(address[0])):
        raise ExposureError(f"The emulated AWS may listen on loopback only, not on {address}.")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
