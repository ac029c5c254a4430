"""Faults of DNS as the host sees it: asked through the VPC's resolver."""

import socket
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from lab.internet.hindered_dns import DELAY_SECONDS
from lab.internet.internet import Internet
from lab.network import Network
from lab.network.namespace import entered
from lab.network.network import HOST_INTERFACE
from lab.network.vpc_services import Interface
from tests.lab.internet.conftest import ELASTIC_IP, SENDING_DOMAIN, ZONE

pytestmark = pytest.mark.lab

INTERFACE = Interface(
    vpc=IPv4Network("10.40.0.0/16"),
    subnet=IPv4Network("10.40.0.0/24"),
    address=IPv4Address("10.40.0.20"),
    mac="02:00:00:00:00:14",
)
_RESOLVER = str(INTERFACE.resolver)


@pytest.fixture(scope="module")
def host(network: Network) -> Iterator[str]:
    """The namespace of a host that took the address which the VPC has for it."""
    namespace = network.connect_host(zone=ZONE, interface=INTERFACE)
    for command in (
        f"address add {INTERFACE.address}/{INTERFACE.subnet.prefixlen} dev {HOST_INTERFACE}",
        f"link set {HOST_INTERFACE} up",
        f"route add default via {INTERFACE.router}",
    ):
        subprocess.run(["ip", "-netns", namespace, *command.split()], check=True)
    yield namespace
    network.disconnect_host(zone=ZONE)


@pytest.fixture(autouse=True)
def asked_before(internet: Internet, host: str) -> None:  # noqa: ARG001 - has to run
    """The name is known to whoever remembers names, and the resolver has started."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if answered(ask(host)):
                return
        except (dns.exception.Timeout, ConnectionRefusedError):
            continue
    pytest.fail("The VPC's resolver did not come up.")


def ask(
    namespace: str,
    *,
    timeout: float = 0.5,
    kind: socket.SocketKind = socket.SOCK_DGRAM,
) -> dns.message.Message:
    """The answer to a question for the sending domain's address."""
    query = dns.message.make_query(SENDING_DOMAIN, dns.rdatatype.A)
    with entered(namespace):
        client = socket.socket(socket.AF_INET, kind)
    with client:
        if kind is socket.SOCK_STREAM:
            client.connect((_RESOLVER, 53))
            client.setblocking(False)
            return dns.query.tcp(query, _RESOLVER, timeout=timeout, sock=client)
        client.setblocking(False)
        return dns.query.udp(query, _RESOLVER, timeout=timeout, sock=client)


def answered(answer: dns.message.Message) -> bool:
    return [rdata.address for rrset in answer.answer for rdata in rrset] == [ELASTIC_IP]


def test_no_answer_comes_when_dns_is_down(internet: Internet, host: str) -> None:
    internet.publish(["down"])
    with pytest.raises(dns.exception.Timeout):
        ask(host)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["udp", "tcp"])
def test_an_answer_comes_late_and_right(
    internet: Internet, host: str, kind: socket.SocketKind
) -> None:
    internet.publish(["slow"])
    began = time.monotonic()
    assert answered(ask(host, timeout=10, kind=kind))
    assert DELAY_SECONDS <= time.monotonic() - began < DELAY_SECONDS + 2


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["udp", "tcp"])
def test_every_answer_is_servfail(internet: Internet, host: str, kind: socket.SocketKind) -> None:
    internet.publish(["servfail"])
    answer = ask(host, kind=kind)
    assert answer.rcode() == dns.rcode.SERVFAIL
    assert not answer.answer


def test_hundreds_of_questions_may_wait_for_a_slow_answer(internet: Internet, host: str) -> None:
    internet.publish(["slow"])
    with entered(host):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.settimeout(DELAY_SECONDS + 5)
        for number in range(400):
            query = dns.message.make_query(f"d{number}.sinkhole.example", dns.rdatatype.MX)
            client.sendto(query.to_wire(), (_RESOLVER, 53))
            time.sleep(0.003)  # no datagram is to be lost for want of a buffer
        answers = [dns.message.from_wire(client.recv(4096)) for _ in range(400)]
    assert {answer.rcode() for answer in answers} == {dns.rcode.NOERROR}


@pytest.mark.parametrize("fault", ["slow", "servfail", "down"])
def test_a_fault_ends_when_it_is_told_to(internet: Internet, host: str, fault: str) -> None:
    internet.publish([fault])
    internet.publish()
    assert answered(ask(host))
