"""What a VPC offers its instances beside routes: DHCP and the resolver, both by dnsmasq."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from lab.network.nat_gateway import VPC_INTERFACE


@dataclass(frozen=True, kw_only=True)
class Interface:
    """An instance's network card and the subnet it is in."""

    vpc: IPv4Network
    subnet: IPv4Network
    address: IPv4Address
    mac: str

    @property
    def router(self) -> IPv4Address:
        """The subnet's first address is the VPC router's (VPC user guide, subnet sizing)."""
        return self.subnet.network_address + 1

    @property
    def resolver(self) -> IPv4Address:
        """The VPC's base plus two is the resolver's (VPC user guide, Amazon DNS server)."""
        return self.vpc.network_address + 2


def private_domain(region: str) -> str:
    """The domain of the DNS names that a VPC of `region` gives its private addresses."""
    return "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"


def private_name(address: IPv4Address, region: str) -> str:
    """The private DNS name of `address`, such as `ip-10-40-0-20.ec2.internal`."""
    return f"ip-{str(address).replace('.', '-')}.{private_domain(region)}"


def dnsmasq_configuration(interface: Interface, *, region: str, upstream: IPv4Address) -> str:
    """dnsmasq settings that offer `interface` its one lease and resolve through `upstream`."""
    return f"""\
# Only the lab's own: no file of this machine is read, no state is kept.
no-resolv
no-hosts
user=root
leasefile-ro
log-facility=-
bind-interfaces
interface={VPC_INTERFACE}
listen-address={interface.resolver},{interface.router}

server={upstream}
# A record that a test changes is seen at once.
cache-size=0
# As many as the VPC resolver takes in a second; dnsmasq refuses beyond 150 unanswered ones.
dns-forward-max=1024
host-record={private_name(interface.address, region)},{interface.address}

dhcp-authoritative
dhcp-range={interface.address},{interface.address},{interface.subnet.netmask},1h
dhcp-host={interface.mac},{interface.address}
dhcp-option=option:router,{interface.router}
dhcp-option=option:dns-server,{interface.resolver}
dhcp-option=option:domain-name,{private_domain(region)}
"""
