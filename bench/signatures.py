"""Whether a sample of delivered messages is signed as it has to be."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.host import Identity


def new_identity(*, sending_domain: str, selector: str) -> Identity:
    """An identity with an RSA-2048 key of its own, as the deployment makes them."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Identity(sending_domain=sending_domain, selector=selector, private_key=pem.decode())


def unverified(messages: Iterable[Path], identity: Identity) -> list[str]:
    """The names of those files whose signature does not verify, or that have none of ours."""
    key = serialization.load_pem_private_key(identity.private_key.encode(), password=None)
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
    owner = f"{identity.selector}._domainkey.{identity.sending_domain}".encode()

    def txt(name: bytes, timeout: float = 5) -> bytes | None:  # noqa: ARG001 - dkimpy's own
        return record if name.rstrip(b".").lower() == owner else None

    return [message.name for message in messages if not _verified(message.read_bytes(), txt)]


def _verified(message: bytes, txt: object) -> bool:
    try:
        return bool(dkim.verify(message, dnsfunc=txt))
    except dkim.DKIMException:
        return False
