"""The sinkhole's SMTP server; runs inside the `internet` namespace on behalf of `Sinkhole`.

python -m lab.internet.receivers.sinkhole_server --name mx.sinkhole.example ... (see `main`)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, AnyStr

import dkim
import dns.exception
import dns.resolver
from aiosmtpd.smtp import SMTP, Envelope, Session

from lab.internet.receivers.serving import ask_only, tls_context
from lab.internet.receivers.sinkhole import Behaviour, Orders, Transaction

_MAX_MESSAGE_BYTES = 50 * 1024 * 1024
_BACKLOG = 1024
_KEY_SECONDS = 5.0  # as long as a key record is remembered
_MESSAGE_ID = re.compile(rb"^message-id:\s*(<[^>\r\n]*>)", re.I | re.M)


class _Records:
    """Appends each final answer to a file, and verifies signatures beside the event loop.

    A message whose signature is not valid is kept.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = (directory / "transactions.jsonl").open("a", buffering=1)
        self._keys: dict[bytes, tuple[float, bytes]] = {}
        self._verifiers = ThreadPoolExecutor(max_workers=1)
        self._messages = 0

    async def verified(self, message: bytes, every: int) -> str:
        """ "pass" or "fail" for one message in `every`, else "".

        Raises:
            dns.exception.DNSException: the key could not be looked up.
        """
        self._messages += 1
        if self._messages % every:
            return ""
        loop = asyncio.get_running_loop()
        if await loop.run_in_executor(self._verifiers, self._is_valid, message):
            return "pass"
        (self._directory / f"invalid-{self._messages:05}.eml").write_bytes(message)
        return "fail"

    def add(self, transaction: Transaction) -> None:
        self._file.write(json.dumps(asdict(transaction)) + "\n")

    def _is_valid(self, message: bytes) -> bool:
        valid: bool = dkim.verify(message, dnsfunc=self._key_record)
        return valid

    def _key_record(self, name: bytes, timeout: int = 5) -> bytes | None:
        known_at, record = self._keys.get(name, (-_KEY_SECONDS, b""))
        if time.monotonic() - known_at > _KEY_SECONDS:
            try:
                answer = dns.resolver.resolve(name.decode(), "TXT", lifetime=timeout)
            except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
                return None
            record = b"".join(answer[0].strings)
            self._keys[name] = time.monotonic(), record
        return record


class _Sinkhole:
    """aiosmtpd's handler, and what every connection shares: orders, records, certificates."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.orders = Orders()
        self._changed = asyncio.Condition()
        self._arguments = arguments
        self._records = _Records(arguments.directory)
        self._first_attempts: dict[tuple[str, str, str], float] = {}
        self._tls = tls_context(arguments.certificate, arguments.key)
        self._expired_tls = tls_context(arguments.expired_certificate, arguments.expired_key)
        self._listener: asyncio.Server | None = None

    async def serve(self) -> None:
        """Listen for mail and for orders."""
        control = await asyncio.start_unix_server(self._take_orders, self._arguments.control)
        await self._listen()
        async with control:
            await control.serve_forever()

    async def answering(self) -> None:
        """Return when the sinkhole is not to leave its clients without an answer."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.orders.behaviour is not Behaviour.UNANSWERED)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self,
        server: SMTP,  # noqa: ARG002
        session: Session,
        envelope: Envelope,
        address: str,
        rcpt_options: list[str],  # noqa: ARG002
    ) -> str:
        reply = self._answer_to_recipient(session, envelope, address)
        if reply.startswith("250"):
            envelope.rcpt_tos.append(address)
        else:
            self._record(session, envelope, recipients=[address], reply=reply)
        return reply

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        message = envelope.original_content or b""
        accepting = "250 2.0.0 Counted"
        try:
            dkim_result = await self._records.verified(message, self.orders.verify_every)
        except dns.exception.DNSException:
            # That is no fault of the message's (RFC 6376 sections 6.1.2 and 6.3).
            dkim_result, accepting = "", "451 4.7.5 The key server did not answer"
        if self.orders.delay_seconds:
            await asyncio.sleep(self.orders.delay_seconds)
        await self.answering()  # an answer that nobody gets is none
        match self.orders.behaviour:
            case Behaviour.DEFER_AT_DATA:
                reply = "451 4.3.0 Not now"
            case Behaviour.BOUNCE_AT_DATA:
                reply = "550 5.7.1 Not wanted here"
            case Behaviour.DROP_AFTER_DATA:
                reply = ""
            case _:
                reply = accepting
        self._record(
            session,
            envelope,
            recipients=envelope.rcpt_tos,
            reply=reply,
            message=message,
            dkim_result=dkim_result,
        )
        if not reply:
            _hang_up(server)
        return reply

    def record_refusal(self, session: Session, reply: str) -> None:
        """Record an answer to a connection that was to be used for more."""
        self._record(session, Envelope(), recipients=[], reply=reply)

    async def _take_orders(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        orders = json.loads(await reader.readline())
        self.orders = Orders(**{**orders, "behaviour": Behaviour(orders["behaviour"])})
        self._first_attempts.clear()
        if self.orders.behaviour is Behaviour.REFUSE_CONNECTIONS:
            await self._stop_listening()
        else:
            await self._listen()
        async with self._changed:
            self._changed.notify_all()
        writer.write(b"done\n")
        writer.close()

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.get_running_loop().create_server(
                self._session, self._arguments.address, 25, backlog=_BACKLOG
            )

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _session(self) -> SMTP:
        expired = self.orders.behaviour is Behaviour.EXPIRED_CERTIFICATE
        without = self.orders.behaviour is Behaviour.NO_STARTTLS
        return _Session(
            self,
            hostname=self._arguments.name,
            ident="ESMTP",
            tls_context=None if without else self._expired_tls if expired else self._tls,
            data_size_limit=_MAX_MESSAGE_BYTES,
            loop=asyncio.get_running_loop(),
        )

    def _answer_to_recipient(self, session: Session, envelope: Envelope, address: str) -> str:
        domain = address.rpartition("@")[2].lower()
        ours: str = self._arguments.domain
        if domain != ours and not domain.endswith(f".{ours}"):
            return f"550 5.7.1 This server takes mail for {ours} only"
        match self.orders.behaviour:
            case Behaviour.BOUNCE:
                return "550 5.1.1 No such user"
            case Behaviour.DEFER_AT_RCPT:
                return "450 4.2.1 Mailbox busy"
            case Behaviour.GREYLIST:
                now = time.monotonic()
                triplet = _address(session), envelope.mail_from or "", address
                first = self._first_attempts.setdefault(triplet, now)
                if now - first < self.orders.greylist_seconds:
                    return "451 4.7.1 Greylisted, try again"
        return "250 2.1.5 Ok"

    def _record(
        self,
        session: Session,
        envelope: Envelope,
        *,
        recipients: list[str],
        reply: str,
        message: bytes = b"",
        dkim_result: str = "",
    ) -> None:
        header = message.partition(b"\r\n\r\n")[0]
        found = _MESSAGE_ID.search(header)
        self._records.add(
            Transaction(
                time=time.time(),
                message_id=found[1].decode(errors="replace") if found else "",
                mail_from=(envelope.mail_from or "").strip("<>"),
                recipients=tuple(recipients),
                address=_address(session),
                port=_port(session),
                accepted=reply.startswith("250"),
                reply=reply,
                signed=b"\r\ndkim-signature:" in b"\r\n" + header.lower(),
                dkim=dkim_result,
                tls=session.ssl["ssl_object"].version() if session.ssl else "",
            )
        )


class _Session(SMTP):
    """One connection, which misbehaves below the level of aiosmtpd's handler."""

    def __init__(self, sinkhole: _Sinkhole, **settings: Any) -> None:
        super().__init__(sinkhole, **settings)
        self._sinkhole = sinkhole

    @property
    def _behaviour(self) -> Behaviour:
        return self._sinkhole.orders.behaviour

    async def push(self, status: AnyStr) -> None:
        """Send a reply, at the pace of the day."""
        await self._sinkhole.answering()
        if self._behaviour is not Behaviour.SLOW:
            await super().push(status)
            return
        reply = (status.encode() if isinstance(status, str) else status) + b"\r\n"
        for position in range(len(reply)):
            self._writer.write(reply[position : position + 1])
            await self._writer.drain()
            if self._behaviour is Behaviour.SLOW:
                await asyncio.sleep(1)

    async def smtp_STARTTLS(self, arg: str) -> None:  # noqa: N802 - aiosmtpd's name
        if self._behaviour is Behaviour.BROKEN_STARTTLS:
            await self.push("220 Ready to start TLS")
            await self.push("This is not TLS")
            _hang_up(self)
        else:
            await super().smtp_STARTTLS(arg)

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - aiosmtpd's name
        if self._behaviour is Behaviour.DROP_IN_DATA:
            await self.push("354 Begin")
            with suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await self._reader.readuntil(b"\r\n")
            _hang_up(self)
            return
        await super().smtp_DATA(arg)
        if self._behaviour is Behaviour.CLOSE_AFTER_EACH:
            command = await self._reader.readuntil(b"\r\n")
            reply = "421 4.7.0 One message a connection"
            if not command.upper().startswith(b"QUIT"):
                assert self.session is not None
                self._sinkhole.record_refusal(self.session, reply)
            await self.push(reply)
            _hang_up(self)


def _address(session: Session) -> str:
    assert session.peer is not None
    return str(session.peer[0])


def _port(session: Session) -> int:
    assert session.peer is not None
    return int(session.peer[1])


def _hang_up(session: SMTP) -> None:
    if session.transport is not None:
        session.transport.close()


async def _serve(arguments: argparse.Namespace) -> None:
    await _Sinkhole(arguments).serve()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="The lab's sinkhole.")
    parser.add_argument("--name", required=True, help="host name")
    parser.add_argument("--domain", required=True, help="take mail for it and every name below")
    parser.add_argument("--address", required=True, help="IP address to listen at, port 25")
    parser.add_argument("--resolver", required=True, help="IP address of the DNS server to ask")
    parser.add_argument("--directory", required=True, type=Path, help="where records are kept")
    parser.add_argument("--control", required=True, type=Path, help="Unix socket to take orders at")
    parser.add_argument("--certificate", required=True, type=Path)
    parser.add_argument("--key", required=True, type=Path)
    parser.add_argument("--expired-certificate", required=True, type=Path)
    parser.add_argument("--expired-key", required=True, type=Path)
    arguments = parser.parse_args()
    ask_only(arguments.resolver)
    asyncio.run(_serve(arguments))


if __name__ == "__main__":
    main()
