"""The lab's authoritative DNS: nsd, serving what the emulated AWS holds at this moment."""

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query
import dns.rdatatype

from lab.internet import addresses
from lab.internet.service import Service
from lab.internet.zones import (
    SECOND_SERVER_LAGS,
    SERVER_FAULTS,
    CloudRecords,
    known_faults,
    read_record_sets,
    zone_files,
)
from lab.network.namespace import command_in, entered

_CONFIGURATIONS = Path("etc/nsd")
_PORT = 53
_PORT_ASIDE = 5353  # nsd's while a faulty server has its place

# Debian's nsd limits repeated answers to one client (200 a second); a lab is one client.
_CONFIGURATION = """\
server:
    zonesdir: "/{zones}"
    zonelistfile: "/{zones}/list"
    xfrdfile: "/{zones}/xfrd.state"
    pidfile: ""
    server-count: 1
    rrl-ratelimit: 0
    zonefiles-check: yes
{listening}
remote-control:
    control-enable: no
"""
_LISTENING = "    ip-address: {address}@{port}"
_ZONE = """\
zone:
    name: "{zone}"
    zonefile: "{zone}zone"
"""


class NameServer:
    """Two authoritative servers in the `internet` namespace, as a hosted zone has several.

    The first one also has the addresses of public resolvers: it has every zone there is, so it can
    answer like one, except that nsd never says that recursion is available (RA).
    """

    def __init__(
        self,
        *,
        root: Path,
        namespace: str,
        read: Callable[[], CloudRecords],
        hosted_zone_name: str,
        region: str,
        mirror_hosts: Collection[str],
        log: Path,
    ) -> None:
        """Describe the servers; nothing runs yet.

        `root` is a writable tree with nsd installed, `read` asks AWS for its records (see
        `read_cloud`), `mirror_hosts` are the Debian mirror's host names.
        """
        self._read = read
        self._hosted_zone_name = hosted_zone_name
        self._region = region
        self._mirror_hosts = mirror_hosts
        self._records = CloudRecords()
        self._faults: frozenset[str] = frozenset()
        self._server_fault = ""
        self._serial = int(time.time())
        self._publishing = threading.Lock()
        self._first = _Nsd(
            name="nsd",
            root=root,
            namespace=namespace,
            listens=(addresses.NAME_SERVER, *addresses.PUBLIC_RESOLVERS),
            log=log,
        )
        self._second = _Nsd(
            name="second-nsd",
            root=root,
            namespace=namespace,
            listens=(addresses.SECOND_NAME_SERVER,),
            log=log.with_name("second-nsd.log"),
        )
        self._hindered = {
            fault: Service(
                name=f"{fault} DNS",
                command=command_in(
                    namespace,
                    [
                        *(sys.executable, "-m", "lab.internet.hindered_dns", fault),
                        *(addresses.NAME_SERVER, str(_PORT_ASIDE)),
                    ],
                ),
                namespace=namespace,
                log=log.with_name(f"{fault}-dns.log"),
                listens=[(addresses.NAME_SERVER, _PORT)],
            )
            for fault in ("slow", "servfail")
        }

    def start(self) -> None:
        """Serve the records of now; return when they are being served."""
        with self._publishing:
            self._records = self._read()
            self._publish()

    def publish(self, faults: Iterable[str] = ()) -> None:
        """Serve the records of now with exactly these `faults` (see `zones.FAULTS`).

        Returns when every zone is being served in its new state. A fault stays until the next
        call. With "down" both servers are stopped, so that queries go unanswered; with "slow" and
        "servfail" another has the first one's place, and the rest is down.

        Raises:
            ValueError: there is no such fault; what was served stays.
        """
        chosen = known_faults(faults)
        with self._publishing:
            self._records = self._read()
            self._faults = chosen
            self._publish()

    def refresh(self) -> None:
        """Publish when the cloud's records have changed; a cheap call to make again and again."""
        with self._publishing:
            records = self._read()
            if records != self._records:
                self._records = records
                self._publish()

    def stop(self) -> None:
        """Stop serving."""
        with self._publishing:
            self._stop()

    def _stop(self) -> None:
        for hindered in self._hindered.values():
            hindered.stop()
        self._first.stop()
        self._second.stop()

    def _publish(self) -> None:
        self._serial += 1
        files = zone_files(
            records=self._records,
            hosted_zone_name=self._hosted_zone_name,
            region=self._region,
            mirror_hosts=self._mirror_hosts,
            faults=self._faults,
            serial=self._serial,
        )
        server_fault = next((fault for fault in SERVER_FAULTS if fault in self._faults), "")
        if server_fault != self._server_fault:
            self._stop()  # they all want the same port
            self._server_fault = server_fault
        if server_fault == "down":
            return
        if not server_fault:
            self._first.serve(files, serial=self._serial, port=_PORT)
            if SECOND_SERVER_LAGS not in self._faults or not self._second.running:
                self._second.serve(files, serial=self._serial, port=_PORT)
            return
        self._first.serve(files, serial=self._serial, port=_PORT_ASIDE)
        if not self._hindered[server_fault].running:
            self._hindered[server_fault].start()
            self._hindered[server_fault].wait_until_ready()


class _Nsd:
    """One nsd with a configuration and zone files of its own."""

    def __init__(
        self, *, name: str, root: Path, namespace: str, listens: Sequence[str], log: Path
    ) -> None:
        """`listens` are its addresses, of which the first is asked whether it is ready."""
        self._zones = _CONFIGURATIONS / name
        self._root = root
        self._namespace = namespace
        self._listens = listens
        self._served: set[str] = set()
        configuration = _CONFIGURATIONS / f"{name}.conf"
        self._configuration = root / configuration
        self._service = Service(
            name=name,
            command=command_in(
                namespace, ["chroot", str(root), "nsd", "-d", "-c", f"/{configuration}"]
            ),
            namespace=namespace,
            log=log,
        )

    @property
    def running(self) -> bool:
        return self._service.running

    def stop(self) -> None:
        self._service.stop()

    def serve(self, files: Mapping[str, str], *, serial: int, port: int) -> None:
        """Serve these zones, all with this `serial`; return when it does.

        The port of a running server stays: stop it before another is wanted.
        """
        directory = self._root / self._zones
        directory.mkdir(parents=True, exist_ok=True)
        for zone, text in files.items():
            # Renamed, since nsd may be reading; it takes a file whose modification time is new.
            unfinished = directory / f"{zone}new"
            unfinished.write_text(text)
            unfinished.rename(directory / f"{zone}zone")
        if self._served != files.keys():
            self.stop()  # it reads its list of zones when it starts
        if self.running:
            self._service.signal(signal.SIGHUP)
        else:
            self._served = set(files)
            listening = [_LISTENING.format(address=a, port=port) for a in self._listens]
            self._configuration.write_text(
                _CONFIGURATION.format(zones=self._zones, listening="\n".join(listening))
                + "".join(_ZONE.format(zone=zone) for zone in files)
            )
            self._service.start()
        for zone in files:
            self._service.wait_until(partial(self._serves, zone, serial, port))

    def _serves(self, zone: str, serial: int, port: int) -> bool:
        """Whether a query for `zone` is answered from the files with `serial`."""
        query = dns.message.make_query(zone, dns.rdatatype.SOA)
        with entered(self._namespace):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.setblocking(False)
            try:
                answer = dns.query.udp(query, self._listens[0], timeout=0.2, port=port, sock=client)
            except dns.exception.Timeout:
                return False
        return any(rrset[0].serial == serial for rrset in answer.answer)


def read_cloud(*, route53: Any, ec2: Any, elb: Any, hosted_zone_id: str) -> CloudRecords:
    """Ask AWS, through its boto3 clients, for the hosted zone's records and the reverse DNS.

    Empty while the hosted zone does not exist yet. Reverse DNS is what is in force: a change that
    AWS still reports as PENDING does not count.
    """
    try:
        record_sets = [
            record_set
            for page in route53.get_paginator("list_resource_record_sets").paginate(
                HostedZoneId=hosted_zone_id
            )
            for record_set in page["ResourceRecordSets"]
        ]
        delegation = route53.get_hosted_zone(Id=hosted_zone_id)["DelegationSet"]
    except route53.exceptions.NoSuchHostedZone:
        record_sets = []
        delegation = {"NameServers": []}
    attributes = ec2.describe_addresses_attribute(Attribute="domain-name")["Addresses"]
    return CloudRecords(
        name_servers=tuple(name.rstrip(".") + "." for name in delegation["NameServers"]),
        hosted_zone=read_record_sets(
            record_sets,
            # An alias is rare, and who stands behind it is asked for only then.
            load_balancers=_load_balancers(elb)
            if any("AliasTarget" in record_set for record_set in record_sets)
            else {},
        ),
        reverse_dns=tuple(
            sorted(
                (attribute["PublicIp"], attribute["PtrRecord"])
                for attribute in attributes
                if attribute.get("PtrRecord")
            )
        ),
    )


def _load_balancers(elb: Any) -> dict[str, tuple[str, ...]]:
    """The addresses of every load balancer, by its DNS name."""
    return {
        balancer["DNSName"]: tuple(
            address["PrivateIPv4Address"]
            for zone in balancer["AvailabilityZones"]
            for address in zone["LoadBalancerAddresses"]
        )
        for balancer in elb.describe_load_balancers()["LoadBalancers"]
    }
