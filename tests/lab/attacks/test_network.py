"""From outside: nothing answers at any port of the host's addresses."""

import pytest

from lab.internet import addresses
from lab.lab import Lab
from lab.network import INTERNET, nat_namespace
from tests.lab.attacks.scan import PORTS, scan

pytestmark = pytest.mark.lab


@pytest.fixture
def elastic_ip(lab: Lab) -> str:
    (address,) = lab.cloud.client("ec2").describe_addresses()["Addresses"]
    return str(address["PublicIp"])


@pytest.fixture
def private_address(lab: Lab) -> str:
    routes = lab.run("ip", "-json", "route", "get", addresses.NAME_SERVER).stdout
    return routes.partition('"prefsrc":"')[2].partition('"')[0]


def test_the_scan_finds_the_one_open_port_of_a_receiver(lab: Lab) -> None:
    with lab.inside(INTERNET):
        answers = scan(addresses.FIRST_RECEIVER)

    assert answers.open == {25}
    assert answers.closed == {*PORTS} - {25}


def test_no_port_of_the_elastic_ip_answers_the_internet(lab: Lab, elastic_ip: str) -> None:
    with lab.inside(INTERNET):
        answers = scan(elastic_ip)

    assert (answers.open, answers.closed) == (set(), set())


def test_the_internet_has_no_way_to_the_private_address(lab: Lab, private_address: str) -> None:
    with lab.inside(INTERNET), pytest.raises(OSError, match="unreachable"):
        scan(private_address)


# Stronger than what AWS allows: there the security group already lets nothing in.
def test_every_port_of_the_host_is_closed_even_to_its_own_subnet(
    lab: Lab, private_address: str
) -> None:
    (zone,) = lab.environment.availability_zones

    with lab.inside(nat_namespace(zone)):
        answers = scan(private_address)

    assert (answers.open, answers.closed) == (set(), {*PORTS})
