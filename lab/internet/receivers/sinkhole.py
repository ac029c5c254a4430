"""The sinkhole, mx.sinkhole.example: a receiver that behaves as it is told, and counts.

It takes mail for every name at and below sinkhole.example. It is fast because it judges little:
whether a message is signed, and whether the signature is right.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from lab.internet import addresses
from lab.internet.certificates import Certificate
from lab.internet.service import InternetError, Service
from lab.network.namespace import command_in

_CONTROL_TIMEOUT = 60.0


class Behaviour(StrEnum):
    """What the sinkhole does with whoever connects."""

    ACCEPT = "accept"
    REFUSE_CONNECTIONS = "refuse-connections"
    UNANSWERED = "unanswered"
    GREYLIST = "greylist"
    CLOSE_AFTER_EACH = "close-after-each"
    DEFER_AT_RCPT = "defer-at-rcpt"
    DEFER_AT_DATA = "defer-at-data"
    BOUNCE = "bounce"
    BOUNCE_AT_DATA = "bounce-at-data"
    SLOW = "slow"
    DROP_IN_DATA = "drop-in-data"
    DROP_AFTER_DATA = "drop-after-data"
    NO_STARTTLS = "no-starttls"
    BROKEN_STARTTLS = "broken-starttls"
    EXPIRED_CERTIFICATE = "expired-certificate"


BEHAVIOURS: Mapping[Behaviour, str] = MappingProxyType(
    {
        Behaviour.ACCEPT: "takes every message",
        Behaviour.REFUSE_CONNECTIONS: "listens no more",
        Behaviour.UNANSWERED: "takes connections and says nothing",
        Behaviour.GREYLIST: "answers 451 4.7.1 to each client, sender and recipient at first",
        Behaviour.CLOSE_AFTER_EACH: "takes one message a connection, then says 421 and closes",
        Behaviour.DEFER_AT_RCPT: "answers 450 4.2.1 at each RCPT",
        Behaviour.DEFER_AT_DATA: "answers 451 4.3.0 after each message",
        Behaviour.BOUNCE: "answers 550 5.1.1 at each RCPT",
        Behaviour.BOUNCE_AT_DATA: "answers 550 5.7.1 after each message",
        Behaviour.SLOW: "answers one byte a second",
        Behaviour.DROP_IN_DATA: "closes the connection when the message has begun",
        Behaviour.DROP_AFTER_DATA: "closes the connection instead of answering the message",
        Behaviour.NO_STARTTLS: "offers no STARTTLS",
        Behaviour.BROKEN_STARTTLS: "offers STARTTLS, and the handshake fails",
        Behaviour.EXPIRED_CERTIFICATE: "shows a certificate that expired",
    }
)
"""Each behaviour in words."""


@dataclass(frozen=True, kw_only=True)
class Orders:
    """How the sinkhole is to behave until it is told otherwise."""

    behaviour: Behaviour = Behaviour.ACCEPT
    greylist_seconds: float = 5.0
    """How long a greylisted recipient is deferred, from the first attempt on."""
    delay_seconds: float = 0.0
    """How long the answer to a message takes."""
    verify_every: int = 1
    """Of how many messages the signature of one is verified."""

    def __post_init__(self) -> None:
        if self.verify_every < 1:
            raise ValueError(f"verify_every is {self.verify_every}: it has to be 1 or more.")


@dataclass(frozen=True, kw_only=True)
class Transaction:
    """The sinkhole's answer to a message, to a recipient that it refused, or to a second message.

    The last has no recipients: 421 to what comes after the first message of a connection.
    """

    time: float
    """Seconds since the epoch."""
    message_id: str
    """With its angle brackets; empty when the answer came before the message."""
    mail_from: str
    """The envelope sender, empty for a bounce."""
    recipients: tuple[str, ...]
    address: str
    """The client's IP address."""
    port: int
    """The client's port: another one for each connection, for hours."""
    accepted: bool
    reply: str
    """Empty when it closed the connection instead."""
    signed: bool
    """Whether the message has a DKIM signature."""
    dkim: str
    """"pass" or "fail", empty when it was not verified."""
    tls: str
    """The version of TLS, empty without."""


class Transactions:
    """Reads what the sinkhole recorded, each record once."""

    def __init__(self, received: Path) -> None:
        """`received` is the sinkhole's directory. Records that are there already are left out."""
        self._file = received / "transactions.jsonl"
        self._position = self._file.stat().st_size if self._file.exists() else 0

    def read(self) -> list[Transaction]:
        """The records since the last call, oldest first."""
        if not self._file.exists():
            return []
        with self._file.open("rb") as file:
            file.seek(self._position)
            complete, newline, _ = file.read().rpartition(b"\n")
        self._position += len(complete) + len(newline)
        return [_parse(line) for line in complete.splitlines()]


class Sinkhole:
    """Runs the sinkhole's server, and tells it how to behave."""

    name = addresses.SINKHOLE_NAME

    def __init__(
        self,
        *,
        namespace: str,
        certificate: Certificate,
        expired_certificate: Certificate,
        received: Path,
        state: Path,
        log: Path,
    ) -> None:
        """Describe it; nothing runs yet. `received` is the directory of its records."""
        self._received = received
        self._control = state / "sinkhole.sock"
        self._server = Service(
            name=self.name,
            command=command_in(
                namespace,
                [
                    sys.executable,
                    *("-m", "lab.internet.receivers.sinkhole_server"),
                    f"--name={self.name}",
                    f"--domain={addresses.SINKHOLE_DOMAIN}",
                    f"--address={addresses.SINKHOLE}",
                    f"--resolver={addresses.NAME_SERVER}",
                    f"--directory={received}",
                    f"--control={self._control}",
                    f"--certificate={certificate.certificate}",
                    f"--key={certificate.key}",
                    f"--expired-certificate={expired_certificate.certificate}",
                    f"--expired-key={expired_certificate.key}",
                ],
            ),
            namespace=namespace,
            log=log,
            listens=[(addresses.SINKHOLE, 25)],
        )

    def start(self) -> None:
        """Forget earlier records and accept every message."""
        self._received.mkdir(parents=True, exist_ok=True)
        (self._received / "transactions.jsonl").unlink(missing_ok=True)
        self._server.start()
        self._server.wait_until_ready()

    def stop(self) -> None:
        """Stop listening; the records stay."""
        self._server.stop()

    def obey(self, orders: Orders) -> None:
        """Behave so from now on, towards open connections too.

        Only whether there is STARTTLS, and which certificate, is settled as a connection opens.

        Raises:
            InternetError: the server did not confirm it.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_CONTROL_TIMEOUT)
            try:
                connection.connect(str(self._control))
                connection.sendall(json.dumps(asdict(orders)).encode() + b"\n")
                confirmed = connection.recv(16)
            except OSError as error:
                raise InternetError(f"The sinkhole does not take orders: {error}") from error
        if confirmed != b"done\n":
            raise InternetError("The sinkhole did not confirm its orders; see its log.")


def _parse(line: bytes) -> Transaction:
    record = json.loads(line)
    return Transaction(**{**record, "recipients": tuple(record["recipients"])})
