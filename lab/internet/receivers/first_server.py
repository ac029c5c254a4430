"""An SMTP server that verifies every message with Python libraries and accepts it.

Runs inside the `internet` namespace, on behalf of `first.FirstReceiver`:

    python -m lab.internet.receivers.first_server --name mx.example.net ... (see `main`)
"""

import argparse
import asyncio
import functools
import re
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import authheaders  # type: ignore[import-untyped]
import dns.exception
import dns.resolver
import dns.reversename
from aiosmtpd.smtp import SMTP, Envelope, Session
from authheaders import authenticate_message, dmarc_lookup
from authres import IPRevAuthenticationResult  # type: ignore[import-untyped]

from lab.internet.receivers.inbox import (
    Inbox,
    authentication_results,
    from_domain,
    parse_headers,
)
from lab.internet.receivers.serving import ask_only, tls_context
from lab.internet.verdict import Verdict

_MAX_MESSAGE_BYTES = 50 * 1024 * 1024


class _Handler:
    """Takes messages for one domain, and judges each as a whole before it answers."""

    def __init__(self, *, name: str, domain: str, inbox: Inbox) -> None:
        self._name = name
        self._domain = domain
        self._inbox = inbox

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self,
        server: SMTP,  # noqa: ARG002
        session: Session,  # noqa: ARG002
        envelope: Envelope,
        address: str,
        rcpt_options: list[str],  # noqa: ARG002
    ) -> str:
        if address.rpartition("@")[2].lower() != self._domain:
            return f"550 5.7.1 This server takes mail for {self._domain} only"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self,
        server: SMTP,  # noqa: ARG002
        session: Session,
        envelope: Envelope,
    ) -> str:
        try:
            verdict = await asyncio.to_thread(self._judge, session, envelope)
        except dns.exception.DNSException as error:
            # Not a permanent failure, which would cost the sender the message.
            return f"451 4.4.3 {type(error).__name__} when verifying, try again"
        print(verdict.to_json(), flush=True)
        return verdict.reply

    def _judge(self, session: Session, envelope: Envelope) -> Verdict:
        message = envelope.original_content or b""
        assert session.peer is not None
        address, helo = session.peer[0], session.host_name or ""
        mail_from = (envelope.mail_from or "").strip("<>")
        noted, reverse_dns = _authenticate(message, self._name, address, mail_from, helo)
        tls = session.ssl["ssl_object"].version() if session.ssl else ""
        received = (
            f"Received: from {helo} ({reverse_dns or 'unknown'} [{address}])\r\n"
            f"\tby {self._name} with {'ESMTPS' if tls else 'ESMTP'};\r\n"
            f"\t{format_datetime(datetime.now(UTC))}\r\n"
        )
        headers = parse_headers(message)
        results = authentication_results(parse_headers(noted.encode()), self._name)
        dkim = results.get("dkim", {"result": "none"})
        return self._inbox.add(
            Verdict(
                receiver=self._name,
                message_id=str(headers.get("Message-ID", "")).strip(),
                subject=str(headers.get("Subject", "")),
                from_domain=from_domain(headers),
                recipients=tuple(envelope.rcpt_tos),
                mail_from=mail_from,
                address=address,
                helo=helo,
                reverse_dns=reverse_dns,
                iprev=results["iprev"]["result"],
                tls=tls,
                spf=results["spf"]["result"],
                dkim=dkim["result"],
                dkim_domain=dkim.get("header.d", ""),
                dmarc=results["dmarc"]["result"],
                accepted=True,
                reply="250 2.0.0 Ok: verified and stored",
                path=None,
            ),
            (noted + received).encode() + message,
        )


def _authenticate(
    message: bytes, name: str, address: str, mail_from: str, helo: str
) -> tuple[str, str]:
    """The Authentication-Results line for a message, and the reverse DNS name of `address`.

    Raises:
        dns.exception.DNSException: DNS did not answer.
    """
    result, reverse_dns = _iprev(address)  # first, since it gives up sooner than pyspf's 20 s
    noted: str = authenticate_message(
        message,
        name,
        ip=address,
        # A bounce is judged as if the HELO name's postmaster had sent it (RFC 7208 section 2.4).
        mail_from=mail_from or f"postmaster@{helo}",
        helo=helo,
        spf=True,
        # Of a message without a signature authheaders would say that its signature fails.
        dkim="DKIM-Signature" in parse_headers(message),
        dmarc=True,
    )
    noted = re.sub(r"\s+", " ", noted).strip() + "; "
    noted += str(IPRevAuthenticationResult(result=result, policy_iprev=address))
    return noted.replace("; ", ";\r\n\t") + "\r\n", reverse_dns


def _iprev(address: str) -> tuple[str, str]:
    """Confirm the reverse DNS of `address` by a look-up in the other direction.

    Returns the result and the name. A missing name fails: RFC 8601 has a permerror for it, but
    receivers refuse the one for the same reason as the other.

    Raises:
        dns.exception.DNSException: DNS did not answer.
    """
    name = ""
    try:
        for pointer in dns.resolver.resolve(dns.reversename.from_address(address), "PTR"):
            name = str(pointer.target).rstrip(".")
            if address in {record.address for record in dns.resolver.resolve(name, "A")}:
                return "pass", name
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return "fail", name
    return "fail", name


async def _serve(arguments: argparse.Namespace) -> None:
    handler = _Handler(
        name=arguments.name, domain=arguments.domain, inbox=Inbox(arguments.directory)
    )
    tls = tls_context(arguments.certificate, arguments.key)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(
            handler,
            hostname=arguments.name,
            ident="ESMTP",
            tls_context=tls,
            data_size_limit=_MAX_MESSAGE_BYTES,
            loop=loop,
        ),
        arguments.address,
        25,
    )
    async with server:
        await server.serve_forever()


def domain_of(address: str) -> str:
    """The domain of a mail address, in lower case; raises IndexError when there is none."""
    return address.rsplit("@", 1)[1].strip(" >").lower()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="The lab's first receiver.")
    parser.add_argument("--name", required=True, help="host name and authserv-id")
    parser.add_argument("--domain", required=True, help="the domain to take mail for")
    parser.add_argument("--address", required=True, help="IP address to listen at, port 25")
    parser.add_argument("--resolver", required=True, help="IP address of the DNS server to ask")
    parser.add_argument("--directory", required=True, type=Path, help="where messages are kept")
    parser.add_argument("--certificate", required=True, type=Path)
    parser.add_argument("--key", required=True, type=Path)
    arguments = parser.parse_args()
    ask_only(arguments.resolver)
    # authheaders reads the whole public suffix list for each organizational domain, in 0.2 s.
    dmarc_lookup.get_org_domain_from_suffix_list = functools.cache(
        dmarc_lookup.get_org_domain_from_suffix_list
    )
    # authheaders 0.16.3 ends a domain at its first hyphen, and finds no policy for what is left:
    # https://github.com/ValiMail/authentication-headers/pull/36
    authheaders.get_domain_part = domain_of
    asyncio.run(_serve(arguments))


if __name__ == "__main__":
    main()
