"""The configuration that the network writes: firewall rules and VPC services."""

import subprocess
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from lab.instance.volumes import by_id_link
from lab.network.nat_gateway import load_balancer_ruleset, ruleset
from lab.network.vpc_services import Interface, dnsmasq_configuration, private_name

PRIVATE = IPv4Network("10.40.0.0/24")
ELASTIC_IP = IPv4Address("203.0.113.10")
INTERFACE = Interface(
    vpc=PRIVATE,
    subnet=IPv4Network("10.40.0.64/26"),
    address=IPv4Address("10.40.0.70"),
    mac="02:00:0a:28:00:46",
)


def test_what_leaves_has_the_deployed_elastic_ip() -> None:
    rules = ruleset(PRIVATE, ELASTIC_IP, smtp_blocked=False)
    assert "ip saddr 10.40.0.0/24 snat to 203.0.113.10" in rules
    assert "dport 25" not in rules


def test_nothing_leaves_before_an_elastic_ip_is_deployed() -> None:
    rules = ruleset(None, None, smtp_blocked=False)
    assert "policy drop" in rules
    assert "snat" not in rules
    assert 'accept\n        iifname "vpc"' not in rules


def test_blocking_smtp_ends_connections_that_are_already_open() -> None:
    rules = ruleset(PRIVATE, ELASTIC_IP, smtp_blocked=True)
    assert rules.index("tcp dport 25 drop") < rules.index("ct state established,related accept")


def test_from_a_peered_vpc_only_what_the_load_balancer_leads_on_reaches_a_host() -> None:
    listener, host = (IPv4Address("10.40.0.126"), 587), (IPv4Address("10.40.0.70"), 587)
    assert "ip daddr 10.40.0.126 tcp dport 587 dnat to 10.40.0.70:587\n" in load_balancer_ruleset(
        {listener: host}
    )
    assert "dnat to" not in load_balancer_ruleset({})
    rules = ruleset(PRIVATE, ELASTIC_IP, smtp_blocked=False).splitlines()
    assert [rule.strip() for rule in rules if '"peer"' in rule] == [
        'iifname "peer" oifname "vpc" ct status dnat accept'
    ]


def test_an_instance_is_leased_the_address_it_was_described_with() -> None:
    settings = dnsmasq_configuration(
        INTERFACE, region="us-east-1", upstream=IPv4Address("198.51.100.53")
    ).splitlines()
    assert "dhcp-host=02:00:0a:28:00:46,10.40.0.70" in settings
    assert "dhcp-option=option:router,10.40.0.65" in settings
    assert "dhcp-option=option:dns-server,10.40.0.2" in settings  # the VPC's base plus two
    assert "no-resolv" in settings  # this machine's own resolvers are never asked


@pytest.mark.lab
def test_dnsmasq_accepts_its_configuration(tmp_path: Path) -> None:
    configuration = tmp_path / "dnsmasq.conf"
    configuration.write_text(
        dnsmasq_configuration(INTERFACE, region="eu-west-1", upstream=IPv4Address("198.51.100.53"))
    )
    subprocess.run(["dnsmasq", "--test", f"--conf-file={configuration}"], check=True)


@pytest.mark.parametrize(
    ("region", "name"),
    [
        ("us-east-1", "ip-10-40-0-70.ec2.internal"),
        ("eu-west-1", "ip-10-40-0-70.eu-west-1.compute.internal"),
    ],
)
def test_a_private_address_has_the_name_that_aws_gives_it(region: str, name: str) -> None:
    assert private_name(INTERFACE.address, region) == name


def test_a_volume_is_found_by_its_id_without_the_dash() -> None:
    assert by_id_link("vol-0123456789abcdef0") == (
        "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0"
    )
