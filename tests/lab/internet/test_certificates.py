"""Certificates as the strictest client of the lab checks them: Python 3.13's and later."""

import ssl
from pathlib import Path

import pytest

from lab.internet.certificates import Certificate, CertificateAuthority

NAMES = ("*.us-east-1.amazonaws.com", "*.s3.us-east-1.amazonaws.com")


def handshake(authority: Path, issued: Certificate, host: str) -> None:
    """A TLS handshake in memory; raises ssl.SSLError when the client refuses."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(issued.certificate, issued.key)
    client_context = ssl.create_default_context(cafile=authority)
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


@pytest.mark.parametrize(
    "host", ["ec2.us-east-1.amazonaws.com", "bucket.s3.us-east-1.amazonaws.com"]
)
def test_every_aws_name_is_covered(tmp_path: Path, host: str) -> None:
    authority = CertificateAuthority(tmp_path)
    handshake(authority.certificate, authority.issue(*NAMES), host)


def test_another_name_is_not_covered(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(authority.certificate, authority.issue(*NAMES), "amazonaws.com")


def test_an_earlier_lab_s_certificates_are_worth_nothing(tmp_path: Path) -> None:
    earlier, later = CertificateAuthority(tmp_path / "1"), CertificateAuthority(tmp_path / "2")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unable to get local issuer|signature"):
        handshake(later.certificate, earlier.issue(*NAMES), "ec2.us-east-1.amazonaws.com")


def test_only_root_can_read_a_key_and_the_authority_s_is_nowhere(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    issued = authority.issue("mx.example.net")
    assert issued.key.stat().st_mode & 0o077 == 0
    keys = [file for file in tmp_path.iterdir() if b"PRIVATE KEY" in file.read_bytes()]
    assert keys == [issued.key]


def test_an_expired_certificate_is_so_for_no_other_reason(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    expired = authority.issue("mx.example.net", expired=True)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
        handshake(authority.certificate, expired, "mx.example.net")
    handshake(authority.certificate, authority.issue("mx.example.net"), "mx.example.net")
