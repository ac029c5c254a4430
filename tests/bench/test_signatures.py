"""A signature that is wrong, missing or somebody else's is noticed."""

from pathlib import Path

import dkim
import pytest

from bench.host import Identity
from bench.signatures import new_identity, unverified

MESSAGE = b"From: Bench <bench@mail.example.com>\r\nSubject: one\r\n\r\nA body.\r\n"


@pytest.fixture(scope="module")
def identity() -> Identity:
    return new_identity(sending_domain="mail.example.com", selector="s1")


def signed(identity: Identity, *, domain: bytes = b"mail.example.com") -> bytes:
    header = dkim.sign(MESSAGE, identity.selector.encode(), domain, identity.private_key.encode())
    return bytes(header) + MESSAGE


def kept(tmp_path: Path, **messages: bytes) -> list[Path]:
    for name, text in messages.items():
        (tmp_path / name).write_bytes(text)
    return sorted(tmp_path.iterdir())


def test_a_right_signature_verifies(tmp_path: Path, identity: Identity) -> None:
    assert unverified(kept(tmp_path, good=signed(identity)), identity) == []


def test_a_corrupted_signature_is_noticed(tmp_path: Path, identity: Identity) -> None:
    good = signed(identity)
    files = kept(
        tmp_path,
        body=good.replace(b"A body", b"B body"),
        header=good.replace(b"Subject: one", b"Subject: two"),
        none=MESSAGE,
        right=good,
    )
    assert unverified(files, identity) == ["body", "header", "none"]


def test_another_key_or_another_domain_is_noticed(tmp_path: Path, identity: Identity) -> None:
    other = new_identity(sending_domain="mail.example.com", selector="s1")
    files = kept(tmp_path, domain=signed(identity, domain=b"elsewhere.example"), key=signed(other))
    assert unverified(files, identity) == ["domain", "key"]
