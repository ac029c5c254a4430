"""The lab's authoritative DNS: nsd, serving what the emulated AWS holds at this moment."""

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable
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
    SERVER_FAULTS,
    CloudRecords,
    known_faults,
    read_record_sets,
    zone_files,
)
from lab.network.namespace import command_in, entered

_ZONES = Path("etc/nsd/zones")
_PORT = 53
_PORT_ASIDE = 5353  # nsd's while a faulty server has its place

# Debian's nsd limits repeated answers to one client (200 a second); a lab is one client.
_CONFIGURATION = """\
server:
    ip-address: {address}@{port}
    zonesdir: "/{zones}"
    pidfile: ""
    server-count: 1
    rrl-ratelimit: 0
    zonefiles-check: yes
remote-control:
    control-enable: no
"""
_ZONE = """\
zone:
    name: "{zone}"
    zonefile: "{zone}zone"
"""


class NameServer:
    """nsd at 198.51.100.53 inside the `internet` namespace."""

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
        """Describe the server; nothing runs yet.

        `root` is a writable tree with nsd installed, `read` asks AWS for its records (see
        `read_cloud`), `mirror_hosts` are the Debian mirror's host names.
        """
        self._zones = root / _ZONES
        self._configuration = root / "etc/nsd/nsd.conf"
        self._namespace = namespace
        self._read = read
        self._hosted_zone_name = hosted_zone_name
        self._region = region
        self._mirror_hosts = mirror_hosts
        self._records = CloudRecords()
        self._faults: frozenset[str] = frozenset()
        self._server_fault = ""
        self._serial = int(time.time())
        self._publishing = threading.Lock()
        self._nsd = Service(
            name="nsd",
            command=command_in(namespace, ["chroot", str(root), "nsd", "-d"]),
            namespace=namespace,
            log=log,
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
        call. With "down" the server is stopped, so that queries go unanswered; with "slow" and
        "servfail" another has its place.

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
        for server in (*self._hindered.values(), self._nsd):
            server.stop()

    def _publish(self) -> None:
        zones = self._write_zones()
        server_fault = next((fault for fault in SERVER_FAULTS if fault in self._faults), "")
        if server_fault != self._server_fault:
            self._stop()  # they all want the same port
            self._server_fault = server_fault
        if server_fault == "down":
            return
        if self._nsd.running:
            self._nsd.signal(signal.SIGHUP)
        else:
            self._configuration.write_text(
                _CONFIGURATION.format(
                    address=addresses.NAME_SERVER, port=self._nsd_port, zones=_ZONES
                )
                + "".join(_ZONE.format(zone=zone) for zone in zones)
            )
            self._nsd.start()
        self._wait_until_served(zones)
        if server_fault and not self._hindered[server_fault].running:
            self._hindered[server_fault].start()
            self._hindered[server_fault].wait_until_ready()

    @property
    def _nsd_port(self) -> int:
        return _PORT_ASIDE if self._server_fault else _PORT

    def _write_zones(self) -> list[str]:
        """Write every zone file with the next serial; returns the zones' names."""
        self._serial += 1
        files = zone_files(
            records=self._records,
            hosted_zone_name=self._hosted_zone_name,
            region=self._region,
            mirror_hosts=self._mirror_hosts,
            faults=self._faults,
            serial=self._serial,
        )
        self._zones.mkdir(parents=True, exist_ok=True)
        for zone, text in files.items():
            # Renamed, since nsd may be reading; it takes a file whose modification time is new.
            unfinished = self._zones / f"{zone}new"
            unfinished.write_text(text)
            unfinished.rename(self._zones / f"{zone}zone")
        return list(files)

    def _wait_until_served(self, zones: Iterable[str]) -> None:
        for zone in zones:
            self._nsd.wait_until(partial(self._serves, zone))

    def _serves(self, zone: str) -> bool:
        """Whether a query for `zone` is answered from the files of the last writing."""
        query = dns.message.make_query(zone, dns.rdatatype.SOA)
        with entered(self._namespace):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.setblocking(False)
            try:
                answer = dns.query.udp(
                    query, addresses.NAME_SERVER, timeout=0.2, port=self._nsd_port, sock=client
                )
            except dns.exception.Timeout:
                return False
        return any(rrset[0].serial == self._serial for rrset in answer.answer)


def read_cloud(*, route53: Any, ec2: Any, hosted_zone_id: str) -> CloudRecords:
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
    except route53.exceptions.NoSuchHostedZone:
        record_sets = []
    attributes = ec2.describe_addresses_attribute(Attribute="domain-name")["Addresses"]
    return CloudRecords(
        hosted_zone=read_record_sets(record_sets),
        reverse_dns=tuple(
            sorted(
                (attribute["PublicIp"], attribute["PtrRecord"])
                for attribute in attributes
                if attribute.get("PtrRecord")
            )
        ),
    )
