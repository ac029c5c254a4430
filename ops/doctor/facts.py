"""What several checks need to know, each thing asked once however many need it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ops import hosted_zone
from ops.deployment import CannotTell, Deployment, MailHost
from ops.dns_answers import Dns, Server, zone_file_text

T = TypeVar("T")


class Once(Generic[T]):
    """A value that several threads need and the first of them fetches; so with its CannotTell."""

    def __init__(self, fetch: Callable[[], T]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._values: list[T] = []
        self._failure: CannotTell | None = None

    def __call__(self) -> T:
        """The value; raises CannotTell."""
        with self._lock:
            if not self._values and self._failure is None:
                try:
                    self._values.append(self._fetch())
                except CannotTell as failure:
                    self._failure = failure
        if self._failure is not None:
            raise CannotTell(str(self._failure)) from self._failure
        return self._values[0]


@dataclass(frozen=True, kw_only=True)
class Address:
    """An Elastic IP of the sending identity.

    associated: with something, which should be a NAT gateway. ptr: the name that its reverse DNS
    has at EC2, or "". ptr_change: EC2's words about a change that is not finished, or "".
    """

    allocation_id: str
    address: str
    associated: bool
    ptr: str
    ptr_change: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """A record that the sending domain needs: `title` is what an operator calls it."""

    title: str
    name: str
    record_type: str


class Facts:
    """The environment as deployed and as the world sees it; each call may raise CannotTell.

    addresses: the Elastic IPs. hosts: in service, by zone. hosted_zone: for each of `records`, what
    Route 53 holds, in `Dns.ask`'s form. servers: the hosted zone's, as the world finds them.
    """

    def __init__(self, deployment: Deployment, dns: Dns) -> None:
        self.deployment = deployment
        self.settings = deployment.settings
        self.dns = dns
        self.addresses = Once(self._read_addresses)
        self.hosts: Once[list[MailHost]] = Once(deployment.hosts)
        self.hosted_zone = Once(self._read_hosted_zone)
        self.servers: Once[list[Server]] = Once(
            lambda: dns.servers_of(self.settings.hosted_zone.name)
        )

    @property
    def records(self) -> list[Record]:
        """The records that the settings ask for."""
        domain = self.settings.sending_domain
        return [
            Record(title="A record", name=domain, record_type="A"),
            Record(title="SPF record", name=domain, record_type="TXT"),
            *(self.dkim_record(selector) for selector in self.settings.dkim.selectors),
            Record(title="DMARC record", name=f"_dmarc.{domain}", record_type="TXT"),
        ]

    def dkim_record(self, selector: str) -> Record:
        """The record with the public key of `selector`."""
        return Record(
            title=f"DKIM record {selector}",
            name=f"{selector}._domainkey.{self.settings.sending_domain}",
            record_type="TXT",
        )

    def _read_addresses(self) -> list[Address]:
        # Whether new or taken over, each address has its reverse DNS in this stack.
        allocations = [
            resource.physical_id
            for resource in self.deployment.stack("SendingIdentity").of_type("Custom::ReverseDns")
            if resource.physical_id
        ]
        if not allocations:
            raise CannotTell("The stack SendingIdentity has no Elastic IP.")
        described = self.deployment.call("ec2", "describe_addresses", AllocationIds=allocations)
        attributes = {
            attribute["AllocationId"]: attribute
            for attribute in self.deployment.pages(
                "ec2",
                "describe_addresses_attribute",
                "Addresses",
                AllocationIds=allocations,
                Attribute="domain-name",
            )
        }
        addresses = []
        for address in described["Addresses"]:
            attribute = attributes.get(address["AllocationId"], {})
            change = attribute.get("PtrRecordUpdate", {})
            words = (change.get("Status"), change.get("Value"), change.get("Reason"))
            addresses.append(
                Address(
                    allocation_id=address["AllocationId"],
                    address=address["PublicIp"],
                    associated="AssociationId" in address,
                    ptr=attribute.get("PtrRecord", "").removesuffix(".").lower(),
                    ptr_change=" ".join(word for word in words if word),
                )
            )
        return sorted(addresses, key=lambda address: address.address)

    def _read_hosted_zone(self) -> dict[Record, tuple[str, ...]]:
        return {record: self._read_record_set(record) for record in self.records}

    def _read_record_set(self, record: Record) -> tuple[str, ...]:
        found = hosted_zone.record_set(self.deployment, record.name, record.record_type)
        if alias := found.get("AliasTarget"):
            return (f"an alias of {alias['DNSName']}",)
        values = (value["Value"] for value in found.get("ResourceRecords", []))
        return tuple(sorted(zone_file_text(value, record.record_type) for value in values))
