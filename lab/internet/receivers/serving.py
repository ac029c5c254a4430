"""What the receivers' servers in Python have in common."""

import ssl
from pathlib import Path

import dns.resolver


def ask_only(name_server: str) -> None:
    """Make every library of this process ask the DNS server at this IP address.

    dkimpy, pyspf and authheaders all use dnspython's default resolver, which keeps no cache.
    """
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [name_server]
    dns.resolver.default_resolver = resolver


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What STARTTLS needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
