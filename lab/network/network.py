"""Builds the lab's namespaces and keeps its NAT gateways and VPC services as deployed."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from lab.network import namespace
from lab.network.nat_gateway import (
    INTERNET_INTERFACE,
    PEER_INTERFACE,
    VPC_INTERFACE,
    load_balancer_ruleset,
    ruleset,
)
from lab.network.vpc_services import Interface, dnsmasq_configuration

INTERNET = "internet"
DNS_SERVER = IPv4Address("198.51.100.53")
INSTANCE_METADATA = IPv4Address("169.254.169.254")
HOST_INTERFACE = "ens5"  # what a Nitro instance calls its first network card

# Receivers, DNS, AWS's APIs, Debian mirror: RFC 5737's documentation range; two public resolvers.
_SERVICE_ADDRESSES = (
    *(IPv4Address(f"198.51.100.{last}") for last in (25, 26, 27, 53, 54, 80, 81)),
    IPv4Address("1.1.1.1"),
    IPv4Address("8.8.8.8"),
)
# A VPC that is peered with the lab's: its router, and a client in each of two subnets.
_PEER_ROUTER = IPv4Address("10.20.0.1")
CLIENT_ADDRESSES = (IPv4Address("10.20.0.10"), IPv4Address("10.20.1.10"))
# Links between a NAT gateway and the Internet, two addresses each (RFC 6598, shared space).
_UPLINKS = IPv4Network("100.64.0.0/16")


class NetworkError(Exception):
    """A part of the lab's network could not be set up; the text names it and says why."""


def nat_namespace(zone: str) -> str:
    """The network namespace of the router and NAT gateway of `zone`."""
    return f"nat-{zone}"


def host_namespace(zone: str) -> str:
    """The network namespace of the mail host of `zone`."""
    return f"host-{zone}"


def client_namespace(zone: str) -> str:
    """The network namespace of clients that reach the load balancer in `zone`."""
    return f"client-{zone}"


Forwards = Mapping[tuple[IPv4Address, int], tuple[IPv4Address, int]]
"""Each listener of a load balancer, by its address and port, and the host that it leads to."""


@dataclass
class _Zone:
    """What is configured in one availability zone."""

    router: IPv4Address  # the address that `internet` routes the zone's Elastic IP to
    private: IPv4Network | None = None
    elastic_ip: IPv4Address | None = None
    smtp_blocked: bool = False
    off: bool = False
    dnsmasq: subprocess.Popen[bytes] | None = None
    forwards: Forwards = field(default_factory=dict)
    has_clients: bool = False


class Network:
    """The namespaces and what is configured in them.

    Made in the caller's mount namespace under /run/netns: in the lab's supervisor they end with
    it. Every method may be called from any thread.
    """

    def __init__(self, *, state: Path, region: str) -> None:
        """`state` gets the VPC services' configuration and logs."""
        self._state = state
        self._region = region
        self._zones: dict[str, _Zone] = {}
        self._lock = threading.RLock()

    def up(self, zones: Sequence[str]) -> None:
        """Make `internet`, and a NAT gateway for each availability zone in `zones`.

        Hosts follow when instances do (`connect_host`), addresses when they are deployed
        (`snat`), and with them further zones.

        Raises:
            NetworkError: the kernel refused something.
        """
        self._state.mkdir(parents=True, exist_ok=True)
        with self._lock:
            _ip(f"netns add {INTERNET}")
            addresses = "\n".join(f"addr add {a}/32 dev lo" for a in _SERVICE_ADDRESSES)
            _ip(f"link set lo up\n{addresses}", INTERNET)
            for zone in zones:
                self._add_zone(zone)

    @property
    def zones(self) -> tuple[str, ...]:
        """The availability zones that there are."""
        return tuple(self._zones)

    def snat(
        self, *, zone: str, private: IPv4Network | None, elastic_ip: IPv4Address | None
    ) -> None:
        """Let `private` of `zone` out under `elastic_ip`; with None, let nothing out.

        `internet` then routes that address to the zone's NAT gateway. A zone that is not there yet
        is made.
        """
        with self._lock:
            if zone not in self._zones:
                self._add_zone(zone)
            settings = self._zones[zone]
            if (settings.private, settings.elastic_ip) == (private, elastic_ip):
                return
            if settings.elastic_ip is not None:
                _ip(f"route del {settings.elastic_ip}", INTERNET)
            if elastic_ip is not None:
                _ip(f"route replace {elastic_ip} via {settings.router}", INTERNET)
            settings.private, settings.elastic_ip = private, elastic_ip
            self._apply_ruleset(zone)

    def block_smtp(self, *, blocked: bool) -> None:
        """Drop, or pass again, everything to port 25 at every NAT gateway.

        This is AWS's own block, which stands until it is lifted on request.
        """
        with self._lock:
            for zone, settings in self._zones.items():
                settings.smtp_blocked = blocked
                self._apply_ruleset(zone)

    def cut(self, *, zone: str, off: bool) -> None:
        """Let the NAT gateway of `zone` pass nothing, as when the zone is gone, or work again."""
        with self._lock:
            self._zones[zone].off = off
            self._apply_ruleset(zone)

    def balance(self, *, zone: str, forwards: Forwards, listening: Sequence[IPv4Address]) -> None:
        """Let clients' connections to a load balancer's listeners in `zone` reach these hosts.

        `listening` are its addresses. The first call makes the clients' namespace.
        """
        with self._lock:
            settings = self._zones[zone]
            if listening and not settings.has_clients:
                self._add_clients(zone)
                settings.has_clients = True
            if forwards == settings.forwards:
                return
            nat = nat_namespace(zone)
            for address in listening:  # so that what leads nowhere is refused, not lost
                _ip(f"addr replace {address}/32 dev lo", nat)
            self._nft(zone, load_balancer_ruleset(forwards))
            settings.forwards = forwards

    def _add_clients(self, zone: str) -> None:
        nat, clients = nat_namespace(zone), client_namespace(zone)
        _ip(f"netns add {clients}")
        _ip(
            f"""\
            link add {PEER_INTERFACE} type veth peer name {HOST_INTERFACE} netns {clients}
            addr add {_PEER_ROUTER}/16 dev {PEER_INTERFACE}
            link set {PEER_INTERFACE} up
            """,
            nat,
        )
        addresses = "\n".join(f"addr add {a}/16 dev {HOST_INTERFACE}" for a in CLIENT_ADDRESSES)
        _ip(
            f"""\
            link set lo up
            {addresses}
            link set {HOST_INTERFACE} up
            route add default via {_PEER_ROUTER}
            """,
            clients,
        )

    def connect_host(self, *, zone: str, interface: Interface) -> str:
        """Make the namespace of a new instance of `zone`, wired to its VPC; return its name.

        The namespace of the zone's previous instance is given up: a new machine's network card
        carries nothing over.
        """
        nat, host = nat_namespace(zone), host_namespace(zone)
        with self._lock:
            self.disconnect_host(zone=zone)
            _ip(f"netns add {host}")
            _ip(
                f"""\
                link add {VPC_INTERFACE} type veth peer name {HOST_INTERFACE} netns {host}
                addr add {interface.router}/{interface.subnet.prefixlen} dev {VPC_INTERFACE}
                addr replace {interface.resolver}/32 dev lo
                link set {VPC_INTERFACE} up
                """,
                nat,
            )
            _ip(f"link set lo up\nlink set {HOST_INTERFACE} address {interface.mac}", host)
            # No neighbour can have the same link-local address, and networkd would wait 2 s to see.
            with namespace.entered(host), suppress(FileNotFoundError):  # a kernel without IPv6
                Path(f"/proc/sys/net/ipv6/conf/{HOST_INTERFACE}/accept_dad").write_text("0")
            self._start_dnsmasq(zone, interface)
        return host

    def disconnect_host(self, *, zone: str) -> None:
        """Take the instance of `zone` off the network, as when it is gone."""
        with self._lock:
            settings = self._zones[zone]
            if settings.dnsmasq is None:
                return
            settings.dnsmasq.kill()
            settings.dnsmasq.wait()
            settings.dnsmasq = None
            _ip(f"link del {VPC_INTERFACE}", nat_namespace(zone))
            _ip(f"netns del {host_namespace(zone)}")

    def down(self) -> None:
        """Stop the VPC services and remove the namespaces; for tests, the supervisor just ends."""
        with self._lock:
            for zone in self._zones:
                self.disconnect_host(zone=zone)
                if self._zones[zone].has_clients:
                    _ip(f"netns del {client_namespace(zone)}")
                _ip(f"netns del {nat_namespace(zone)}")
            self._zones.clear()
            _ip(f"netns del {INTERNET}")

    def _add_zone(self, zone: str) -> None:
        number = len(self._zones)
        link, uplink = f"nat{number}", _UPLINKS.network_address + 4 * number
        nat, far, near = nat_namespace(zone), uplink + 1, uplink + 2
        blocked = any(other.smtp_blocked for other in self._zones.values())
        self._zones[zone] = _Zone(router=near, smtp_blocked=blocked)
        _ip(f"netns add {nat}")
        _ip(
            f"""\
            link add {link} type veth peer name {INTERNET_INTERFACE} netns {nat}
            addr add {far}/30 dev {link}
            link set {link} up
            """,
            INTERNET,
        )
        _ip(
            f"""\
            link set lo up
            addr add {INSTANCE_METADATA}/32 dev lo
            addr add {near}/30 dev {INTERNET_INTERFACE}
            link set {INTERNET_INTERFACE} up
            route add default via {far}
            """,
            nat,
        )
        with namespace.entered(nat):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        self._apply_ruleset(zone)

    def _apply_ruleset(self, zone: str) -> None:
        settings = self._zones[zone]
        private = None if settings.off else settings.private
        self._nft(zone, ruleset(private, settings.elastic_ip, smtp_blocked=settings.smtp_blocked))

    def _nft(self, zone: str, text: str) -> None:
        try:
            namespace.run_in(nat_namespace(zone), ["nft", "--file", "-"], text)
        except subprocess.CalledProcessError as error:
            raise NetworkError(
                f"nft refused the rules of {nat_namespace(zone)}: {error.stderr.strip()}"
            ) from error

    def _start_dnsmasq(self, zone: str, interface: Interface) -> None:
        configuration = self._state / f"dnsmasq-{zone}.conf"
        configuration.write_text(
            dnsmasq_configuration(interface, region=self._region, upstream=DNS_SERVER)
        )
        log = self._state / f"dnsmasq-{zone}.log"
        command = ["dnsmasq", "--keep-in-foreground", f"--conf-file={configuration}"]
        with log.open("ab") as output:
            dnsmasq = subprocess.Popen(
                namespace.command_in(nat_namespace(zone), command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._zones[zone].dnsmasq = dnsmasq


def _ip(script: str, name: str | None = None) -> None:
    """Run lines of `ip` commands, in the network namespace `name` if given."""
    lines = "\n".join(line.strip() for line in script.splitlines()) + "\n"
    command = ["ip", *(["-netns", name] if name else []), "-batch", "-"]
    result = subprocess.run(command, check=False, input=lines, capture_output=True, text=True)
    if result.returncode:
        where = name or "the lab"
        raise NetworkError(f"ip refused one of these for {where}:\n{lines}{result.stderr.strip()}")
