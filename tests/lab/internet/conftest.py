"""The lab's Internet without the rest: stubbed AWS answers, and a sender at an Elastic IP."""

import base64
import http.server
import os
import smtplib
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from lab.internet.addresses import FIRST_RECEIVER, SECOND_RECEIVER
from lab.internet.internet import RECEIVERS, Internet
from lab.internet.messages import Sample
from lab.network import Network, nat_namespace
from lab.network.namespace import entered
from lab.places import Places
from tests.lab.namespaces import hidden_from_the_machine
from tests.lab.waiting import PATIENCE_SECONDS

SENDING_DOMAIN = "mail.example.com"
ELASTIC_IP = "203.0.113.10"
ZONE = "us-east-1a"
MIRROR_HOST = "debian.example.edu"

_EXCHANGES = {
    "example.net": FIRST_RECEIVER,
    "example.org": SECOND_RECEIVER,
}
_SIGNED_FIELDS = [b"from", b"to", b"subject", b"message-id", b"mime-version", b"content-type"]


@dataclass
class StubbedCloud:
    """Stands for the boto3 clients of Route 53 and EC2."""

    record_sets: list[dict[str, Any]]
    reverse_dns: dict[str, str]
    name_servers: tuple[str, ...] = ("ns-1.awsdns-1.com", "ns-2.awsdns-2.co.uk")

    class NoSuchHostedZoneError(Exception):
        pass

    @property
    def exceptions(self) -> SimpleNamespace:
        return SimpleNamespace(NoSuchHostedZone=self.NoSuchHostedZoneError)

    def get_paginator(self, operation: str) -> "StubbedCloud":
        assert operation == "list_resource_record_sets"
        return self

    def paginate(self, **_: str) -> list[dict[str, Any]]:
        return [{"ResourceRecordSets": self.record_sets}]

    def get_hosted_zone(self, **_: str) -> dict[str, Any]:
        return {"DelegationSet": {"NameServers": list(self.name_servers)}}

    def describe_addresses_attribute(self, **_: str) -> dict[str, Any]:
        return {
            "Addresses": [
                {"PublicIp": ip, "PtrRecord": name} for ip, name in self.reverse_dns.items()
            ]
        }


@dataclass
class DkimKey:
    """A key pair: PEM for the signer, text for a verifier, split TXT RDATA for Route 53."""

    private_key: bytes = field(init=False)
    text: str = field(init=False)
    record: str = field(init=False)

    def __post_init__(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.private_key = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        public_key = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        text = self.text = f"v=DKIM1; k=rsa; p={base64.b64encode(public_key).decode()}"
        self.record = " ".join(f'"{text[i : i + 255]}"' for i in range(0, len(text), 255))

    def look_up(self, *_: object, **__: object) -> bytes:
        """Answers dkimpy's question about a key record."""
        return self.text.encode()


def record_set(name: str, kind: str, value: str) -> dict[str, Any]:
    """One of Route 53's record sets, as ListResourceRecordSets gives it."""
    return {"Name": name, "Type": kind, "TTL": 300, "ResourceRecords": [{"Value": value}]}


@pytest.fixture(scope="package")
def dkim_key() -> DkimKey:
    return DkimKey()


@pytest.fixture(scope="package")
def cloud(dkim_key: DkimKey) -> StubbedCloud:
    name = f"{SENDING_DOMAIN}."
    return StubbedCloud(
        record_sets=[
            record_set("example.com.", "SOA", "ns.example.com. hostmaster.example.com. 1 2 3 4 5"),
            record_set("example.com.", "NS", "ns.example.com."),
            record_set(name, "A", ELASTIC_IP),
            record_set(name, "TXT", f'"v=spf1 ip4:{ELASTIC_IP} -all"'),
            record_set(f"s1._domainkey.{name}", "TXT", dkim_key.record),
            record_set(f"_dmarc.{name}", "TXT", '"v=DMARC1; p=reject; adkim=s; aspf=s"'),
        ],
        reverse_dns={ELASTIC_IP: name},
    )


class Sender:
    """Sends as a mail host behind the NAT gateway would."""

    def __init__(self, *, namespace: str, key: DkimKey) -> None:
        self._namespace = namespace
        self._key = key

    def send(
        self,
        sample: Sample,
        *,
        signed: bool = True,
        tls: bool = True,
        mail_from: str = f"application@{SENDING_DOMAIN}",
        domains: Sequence[str] = tuple(_EXCHANGES),
    ) -> None:
        """Deliver a sample to its recipients in `domains`; refusals are the receiver's to tell.

        Raises:
            smtplib.SMTPDataError: the message was deferred.
        """
        message = b"".join(
            line + b"\r\n" for line in sample.content.splitlines() if not line.startswith(b"Bcc:")
        )
        if signed:
            message = self.sign(message) + message
        for domain in domains:
            recipients = [a for a in sample.recipients if a.endswith(f"@{domain}")]
            with self.connect(_EXCHANGES[domain]) as client:
                if tls:
                    client.starttls()
                    client.ehlo()
                client.mail(mail_from, ["BODY=8BITMIME"])
                for recipient in recipients:
                    code, reply = client.rcpt(recipient)
                    assert code == 250, reply
                code, reply = client.data(message)
                if 400 <= code < 500:
                    raise smtplib.SMTPDataError(code, reply)

    def sign(self, message: bytes, *, selector: str = "s1") -> bytes:
        """The DKIM-Signature field that belongs before `message`."""
        signature: bytes = dkim.sign(
            message,
            selector.encode(),
            SENDING_DOMAIN.encode(),
            self._key.private_key,
            canonicalize=(b"relaxed", b"simple"),
            include_headers=_SIGNED_FIELDS,
        )
        return signature

    def connect(self, address: str) -> smtplib.SMTP:
        """A session with the server at `address` that said EHLO."""
        with entered(self._namespace):
            client = smtplib.SMTP(
                address,
                local_hostname=SENDING_DOMAIN,
                source_address=(ELASTIC_IP, 0),
                timeout=PATIENCE_SECONDS,
            )
        client.ehlo()
        return client


@pytest.fixture(scope="package")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """The lab's namespaces, with the Elastic IP on the NAT gateway itself."""
    with hidden_from_the_machine():
        network = Network(state=tmp_path_factory.mktemp("network"), region="us-east-1")
        network.up([ZONE])
        network.snat(
            zone=ZONE, private=IPv4Network("10.40.0.0/24"), elastic_ip=IPv4Address(ELASTIC_IP)
        )
        nat = nat_namespace(ZONE)
        own_address = ["ip", "-netns", nat, "address", "add", f"{ELASTIC_IP}/32", "dev", "lo"]
        subprocess.run(own_address, check=True)
        yield network
        network.down()


@pytest.fixture(scope="package")
def sender(network: Network, dkim_key: DkimKey) -> Sender:  # noqa: ARG001 - has to be up
    return Sender(namespace=nat_namespace(ZONE), key=dkim_key)


@pytest.fixture(scope="package")
def aws_endpoint() -> Iterator[str]:
    """A web server in the emulator's place, which repeats the request's Host and body."""

    class Echo(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("X-Host", self.headers["Host"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="package")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("mirror")
    (directory / "InRelease").write_bytes(b"signed")
    (directory / "a+b~c.deb").write_bytes(os.urandom(300_000))
    return directory


@pytest.fixture(scope="package")
def received(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each receiver has a directory of what it got."""
    return tmp_path_factory.mktemp("received")


@pytest.fixture(scope="package")
def running_internet(
    network: Network,  # noqa: ARG001 - has to be up
    cloud: StubbedCloud,
    aws_endpoint: str,
    mirror: Path,
    received: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Internet]:
    internet = Internet(
        endpoint=aws_endpoint,
        client=lambda _: cloud,
        region="us-east-1",
        hosted_zone_id="Z0LABEXAMPLECOM",
        hosted_zone_name="example.com",
        state=tmp_path_factory.mktemp("internet"),
        cache=Places().cache,
        received=received,
        mirror=mirror,
        mirror_hosts=[MIRROR_HOST],
        progress=print,
    )
    internet.start()
    yield internet
    internet.stop()


@pytest.fixture
def internet(running_internet: Internet) -> Iterator[Internet]:
    """The Internet; without faults in its DNS again when the test ends."""
    yield running_internet
    running_internet.publish()


@pytest.fixture(params=RECEIVERS)
def receiver(request: pytest.FixtureRequest) -> str:
    return str(request.param)
