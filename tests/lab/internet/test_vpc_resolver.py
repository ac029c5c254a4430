"""Faults of DNS as the host sees it: asked through the VPC's resolver."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from lab.internet.hindered_dns import DELAY_SECONDS
from lab.internet.internet import Internet
from lab.network import Network
from lab.network.namespace import entered
from lab.network.network import HOST_INTERFACE
from lab.network.vpc_services import Interface
from tests.lab.internet.asking import SILENCE_SECONDS, ask, ask_over_tcp
from tests.lab.internet.conftest import ELASTIC_IP, SENDING_DOMAIN, ZONE
from tests.lab.waiting import eventually

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
    eventually(lambda: answered(ask_here(host)))


def ask_here(
    host: str, asked: Callable[..., dns.message.Message] = ask, **options: float
) -> dns.message.Message:
    """The resolver's answer to a question for the sending domain's address."""
    return asked(SENDING_DOMAIN, dns.rdatatype.A, namespace=host, server=_RESOLVER, **options)


def answered(answer: dns.message.Message) -> bool:
    return [rdata.address for rrset in answer.answer for rdata in rrset] == [ELASTIC_IP]


def test_no_answer_comes_when_dns_is_down(internet: Internet, host: str) -> None:
    internet.publish(["down"])
    with pytest.raises(dns.exception.Timeout):
        ask_here(host, timeout=SILENCE_SECONDS)


@pytest.mark.parametrize("asked", [ask, ask_over_tcp])
def test_an_answer_comes_late_and_right(
    internet: Internet, host: str, asked: Callable[..., dns.message.Message]
) -> None:
    internet.publish(["slow"])
    began = time.monotonic()
    assert answered(ask_here(host, asked))
    assert time.monotonic() - began >= DELAY_SECONDS


@pytest.mark.parametrize("asked", [ask, ask_over_tcp])
def test_every_answer_is_servfail(
    internet: Internet, host: str, asked: Callable[..., dns.message.Message]
) -> None:
    internet.publish(["servfail"])
    answer = ask_here(host, asked)
    assert answer.rcode() == dns.rcode.SERVFAIL
    assert not answer.answer


def test_hundreds_of_questions_may_wait_for_a_slow_answer(internet: Internet, host: str) -> None:
    internet.publish(["slow"])
    unanswered = {f"d{number}.sinkhole.example." for number in range(400)}
    with entered(host):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.settimeout(DELAY_SECONDS + 15)
        # Twice, because a server that pauses has room for some 270 datagrams and loses the rest.
        # Were fewer than 200 allowed to wait, twice would not be enough.
        for _ in range(2):
            for name in unanswered:
                query = dns.message.make_query(name, dns.rdatatype.MX)
                client.sendto(query.to_wire(), (_RESOLVER, 53))
                time.sleep(0.003)
            with suppress(TimeoutError):
                while unanswered:
                    answer = dns.message.from_wire(client.recv(4096))
                    assert answer.rcode() == dns.rcode.NOERROR
                    unanswered.discard(str(answer.question[0].name))
    assert not unanswered


@pytest.mark.parametrize("fault", ["slow", "servfail", "down"])
def test_a_fault_ends_when_it_is_told_to(internet: Internet, host: str, fault: str) -> None:
    internet.publish([fault])
    internet.publish()
    assert answered(ask_here(host))
