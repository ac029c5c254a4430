"""Keeps machines and networks as the emulated AWS says they are.

The lab's part of EC2: everything is read from the AWS API, nothing from the emulator's insides.
"""

from __future__ import annotations

import base64
import datetime
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from lab.container import Container
from lab.instance.health import is_well
from lab.instance.image import prepare_instance
from lab.instance.imds import Behaviour, InstanceData, InstanceMetadata, RoleCredentials
from lab.instance.volumes import Volumes
from lab.network import Network, nat_namespace
from lab.network.namespace import listening_socket
from lab.network.network import INSTANCE_METADATA
from lab.network.vpc_services import Interface, private_name

_POLL_SECONDS = 0.3
_HEALTH_CHECK_SECONDS = 2
_ALIVE = frozenset({"pending", "running"})

NO_MACHINE_TAG = "postern:lab-no-machine"
"""An instance with this tag is one for the API only: no machine is booted for it."""

Description: TypeAlias = dict[str, Any]
"""One item of an EC2 Describe answer, as boto3 gives it."""


@dataclass(frozen=True)
class Host:
    """A booted instance: the machine, its metadata service, and where they are."""

    instance_id: str
    zone: str
    container: Container
    metadata: InstanceMetadata

    @property
    def console_log(self) -> Path:
        """What systemd and cloud-init printed to the console."""
        return self.container.console_log

    @property
    def user_data_log(self) -> Path:
        """The output of everything that user data ran; readable after the end as well."""
        return self.container.changes / "var/log/cloud-init-output.log"

    @property
    def journal(self) -> Path:
        """The journal, for `journalctl --directory`; readable after the end as well."""
        return self.container.changes / "var/log/journal"

    @property
    def metadata_log(self) -> Path:
        """The requests to the instance metadata service."""
        return self.container.state / "imds.log"


class Hypervisor:
    """Boots, ends, connects and equips instances as the emulated EC2 account changes."""

    def __init__(
        self,
        *,
        client: Callable[[str], Any],
        region: str,
        image: Path,
        network: Network,
        state: Path,
        ca_certificate: Path,
        report: Callable[[str], None],
    ) -> None:
        """`client` makes boto3 clients of the emulated account by service name.

        `image` is `lab.instance.image.instance_image`'s, `state` this object's directory.

        `report` gets a line when an instance starts or ends, and the whole story of every error.
        """
        self._ec2 = client("ec2")
        self._elb = client("elbv2")
        self._iam = client("iam")
        self._sts = client("sts")
        self._region = region
        self._image = image
        self._network = network
        self._state = state
        self._ca_certificate = ca_certificate
        self._report = report
        self._hosts: dict[str, Host] = {}
        self._booted: set[str] = set()
        self.problems: list[str] = []
        """What went wrong, a line each; nobody else would tell before CloudFormation gives up."""
        self._subnets: dict[str, tuple[Description, Description]] = {}
        self._volumes = Volumes(state / "volumes")
        self._changing = threading.RLock()  # machines, by the loop below or by a fault on purpose
        self._launches_held = False
        self._lost_zones: set[str] = set()
        self._next_health_check = 0.0
        self._metadata: Behaviour = "answers"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="hypervisor", daemon=True)

    @property
    def hosts(self) -> Mapping[str, Host]:
        """The booted instances by instance id."""
        return MappingProxyType(dict(self._hosts))

    def start(self) -> None:
        """Follow the account on a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following, and pull the plug of every instance."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for host in list(self._hosts.values()):
            self._end(host, Container.kill)

    def crash(self, instance_id: str) -> None:
        """End a machine at once, without shutdown, as when its hardware fails.

        Nothing more of what it had in memory reaches its volumes (`Volumes.lose_power`). EC2 then
        terminates the instance, as an Auto Scaling group does with one that fails its status check,
        and the group launches a successor. Returns when nothing has the volumes any more.

        Raises:
            KeyError: no machine of that instance runs.
        """
        with self._changing:
            host = self._hosts[instance_id]
            volumes = [
                v for v, instance in self._volumes.attached.items() if instance == instance_id
            ]
            self._report(f"instance {instance_id} crashes")
            self._volumes.lose_power(instance_id)
            self._end(host, Container.kill)
        self._ec2.terminate_instances(InstanceIds=[instance_id])
        for volume in volumes:
            self._volumes.wait_until_released(volume)

    def hold_launches(self, *, held: bool) -> None:
        """Boot no machine while `held`, whatever EC2 says; those that waited boot afterwards."""
        with self._changing:
            self._launches_held = held

    def lose_zone(self, zone: str, *, lost: bool) -> None:
        """Boot no machine in a zone that is `lost`; those that waited boot when it is back."""
        with self._changing:
            if lost:
                self._lost_zones.add(zone)
            else:
                self._lost_zones.discard(zone)

    def metadata(self, behaviour: Behaviour) -> None:
        """How the instance metadata service behaves for every machine from here on, old and new."""
        with self._changing:
            self._metadata = behaviour
            for host in self._hosts.values():
                host.metadata.behave(behaviour)

    def volume_image(self, volume: str) -> Path:
        """The file with the contents of `volume`.

        While no machine has the volume, it is anyone's to read and to write.

        Raises:
            VolumeError: no machine has it, and yet something writes to it.
        """
        if volume not in self._volumes.attached:
            self._volumes.wait_until_released(volume)
        return self._volumes.image(volume)

    def step(self) -> None:
        """Bring machines, volumes and NAT gateways to what the account says now.

        The order matters: a machine is gone before its successor boots and before its volume goes
        to another.
        """
        with self._changing:
            self._step()

    def _step(self) -> None:
        instances = self._describe_instances()
        for host in list(self._hosts.values()):
            if host.instance_id not in instances:
                self._report(f"instance {host.instance_id} is shutting down")
                self._end(host, Container.power_off)
            elif host.container.asks_for_reboot:
                self._report(f"instance {host.instance_id} reboots")
                self._take_volumes(host)  # their devices are gone with its /dev
                host.container.reboot()
        self._connect_nat_gateways()
        self._connect_load_balancers(instances)
        for instance_id, instance in instances.items():
            if not self._launches_held and instance_id not in self._booted:
                self._boot(instance)
        self._attach_volumes(instances)

    def _loop(self) -> None:
        last_story = ""
        while not self._stopping.is_set():
            try:
                self.step()
                last_story = ""
            except Exception as error:  # told; the next round starts from the API again
                story = traceback.format_exc()
                if story != last_story:
                    self._report(f"hypervisor: {story}")
                    self.problems.append(f"{type(error).__name__}: {error}")
                last_story = story
            self._stopping.wait(_POLL_SECONDS)

    def _describe_instances(self) -> dict[str, Description]:
        """The instances that ought to run, by instance id."""
        reservations = self._ec2.describe_instances()["Reservations"]
        return {
            instance["InstanceId"]: instance | {"OwnerId": reservation["OwnerId"]}
            for reservation in reservations
            for instance in reservation["Instances"]
            if instance["State"]["Name"] in _ALIVE
            and not any(tag["Key"] == NO_MACHINE_TAG for tag in instance.get("Tags", []))
        }

    def _connect_nat_gateways(self) -> None:
        available = {"Name": "state", "Values": ["available"]}
        gateways = self._ec2.describe_nat_gateways(Filters=[available])["NatGateways"]
        deployed: dict[str, tuple[IPv4Network, IPv4Address]] = {}
        for gateway in gateways:
            subnet, vpc = self._subnet_and_vpc(gateway["SubnetId"])
            address = gateway["NatGatewayAddresses"][0]["PublicIp"]
            deployed[subnet["AvailabilityZone"]] = (
                IPv4Network(vpc["CidrBlock"]),
                IPv4Address(address),
            )
        for zone in {*self._network.zones, *deployed}:
            private, elastic_ip = deployed.get(zone, (None, None))
            self._network.snat(zone=zone, private=private, elastic_ip=elastic_ip)

    def _connect_load_balancers(self, instances: Mapping[str, Description]) -> None:
        """Lead each listener, in each zone, to that zone's host while the host calls itself well.

        So a load balancer of the lab is not cross-zone; and one answer decides, where AWS waits for
        two that are the same.
        """
        if time.monotonic() < self._next_health_check:
            return
        self._next_health_check = time.monotonic() + _HEALTH_CHECK_SECONDS
        forwards: dict[str, dict[tuple[IPv4Address, int], tuple[IPv4Address, int]]] = {}
        listening: dict[str, list[IPv4Address]] = {}
        for balancer in self._elb.describe_load_balancers()["LoadBalancers"]:
            addresses = {
                zone["ZoneName"]: IPv4Address(
                    zone["LoadBalancerAddresses"][0]["PrivateIPv4Address"]
                )
                for zone in balancer["AvailabilityZones"]
            }
            listeners = self._elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])
            for listener in listeners["Listeners"]:
                target_group = listener["DefaultActions"][0]["TargetGroupArn"]
                targets = self._targets(target_group, instances)
                for zone, address in addresses.items():
                    listening.setdefault(zone, []).append(address)
                    if zone in targets:
                        key = address, listener["Port"]
                        forwards.setdefault(zone, {})[key] = targets[zone]
        for zone in self._network.zones:
            self._network.balance(
                zone=zone, forwards=forwards.get(zone, {}), listening=listening.get(zone, [])
            )

    def _targets(
        self, arn: str, instances: Mapping[str, Description]
    ) -> dict[str, tuple[IPv4Address, int]]:
        """The well members of a target group: address and port, by zone."""
        answer = self._elb.describe_target_groups(TargetGroupArns=[arn])
        target_group = answer["TargetGroups"][0]
        health = self._elb.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
        found = {}
        for target in health:
            host = self._hosts.get(target["Target"]["Id"])
            if host is None or host.instance_id not in instances:
                continue
            address = IPv4Address(instances[host.instance_id]["PrivateIpAddress"])
            port = int(target_group["HealthCheckPort"])
            if is_well(nat_namespace(host.zone), address, port, target_group["HealthCheckPath"]):
                found[host.zone] = address, target_group["Port"]
        return found

    def _boot(self, instance: Description) -> None:
        """Boot `instance`, and never try a second time: EC2 would not either."""
        data = self._instance_data(instance)
        if data.zone in self._lost_zones:
            return
        if any(host.zone == data.zone for host in self._hosts.values()):
            return  # a zone of the lab has one host, so it waits for its predecessor's end
        self._booted.add(data.instance_id)
        interface = Interface(
            vpc=data.vpc_cidr, subnet=data.subnet_cidr, address=data.address, mac=data.mac
        )
        state = self._state / data.instance_id
        state.mkdir(parents=True, exist_ok=True)
        host = Host(
            instance_id=data.instance_id,
            zone=data.zone,
            container=Container(
                name=data.instance_id,
                root=self._image,
                netns=self._network.connect_host(zone=data.zone, interface=interface),
                state=state,
                prepare=partial(prepare_instance, ca_certificate=self._ca_certificate),
            ),
            metadata=InstanceMetadata(
                instance=data,
                assume_role=partial(self._assume_role, data),
                listen=partial(
                    listening_socket, nat_namespace(data.zone), str(INSTANCE_METADATA), 80
                ),
                log=state / "imds.log",
            ),
        )
        self._report(f"instance {data.instance_id} boots at {data.address} in {data.zone}")
        host.metadata.behave(self._metadata)
        try:
            host.container.start()
        except BaseException:
            self._release(host)
            raise
        self._hosts[data.instance_id] = host

    def _end(self, host: Host, how: Callable[[Container], None]) -> None:
        how(host.container)
        self._take_volumes(host)
        self._release(host)
        del self._hosts[host.instance_id]

    def _take_volumes(self, host: Host) -> None:
        for volume, instance_id in self._volumes.attached.items():
            if instance_id == host.instance_id:
                self._volumes.detach(volume)

    def _release(self, host: Host) -> None:
        """Take away what AWS gave the machine of `host`, which runs no more."""
        host.metadata.stop()
        self._network.disconnect_host(zone=host.zone)

    def _attach_volumes(self, instances: Mapping[str, Description]) -> None:
        wanted = {}
        sizes = {}
        if self._hosts:
            for volume in self._ec2.describe_volumes()["Volumes"]:
                sizes[volume["VolumeId"]] = volume["Size"]
                for attachment in volume["Attachments"]:
                    instance = instances.get(attachment["InstanceId"], {})
                    # The root volume is the container's own file system.
                    if attachment["Device"] != instance.get("RootDeviceName"):
                        wanted[volume["VolumeId"]] = attachment["InstanceId"]
        for volume_id, instance_id in self._volumes.attached.items():
            if wanted.get(volume_id) != instance_id:
                self._volumes.detach(volume_id)
        for volume_id, instance_id in wanted.items():
            host = self._hosts.get(instance_id)
            if host is not None and volume_id not in self._volumes.attached:
                self._volumes.attach(
                    volume=volume_id,
                    size_gib=sizes[volume_id],
                    instance=instance_id,
                    container=host.container,
                )

    def _instance_data(self, instance: Description) -> InstanceData:
        subnet, vpc = self._subnet_and_vpc(instance["SubnetId"])
        user_data = self._ec2.describe_instance_attribute(
            InstanceId=instance["InstanceId"], Attribute="userData"
        )
        address = IPv4Address(instance["PrivateIpAddress"])
        profile_arn = instance.get("IamInstanceProfile", {}).get("Arn")
        return InstanceData(
            instance_id=instance["InstanceId"],
            image_id=instance["ImageId"],
            instance_type=instance["InstanceType"],
            architecture=instance["Architecture"],
            account=instance["OwnerId"],
            region=self._region,
            zone=subnet["AvailabilityZone"],
            vpc_id=vpc["VpcId"],
            vpc_cidr=IPv4Network(vpc["CidrBlock"]),
            subnet_id=subnet["SubnetId"],
            subnet_cidr=IPv4Network(subnet["CidrBlock"]),
            address=address,
            mac="02:00:" + address.packed.hex(":"),
            host_name=private_name(address, self._region),
            security_groups=tuple(group["GroupName"] for group in instance["SecurityGroups"]),
            profile_arn=profile_arn,
            role=self._role_of(profile_arn) if profile_arn else None,
            user_data=base64.b64decode(user_data.get("UserData", {}).get("Value", "")),
        )

    def _subnet_and_vpc(self, subnet_id: str) -> tuple[Description, Description]:
        """Neither changes under its id, so each is asked for once."""
        if subnet_id not in self._subnets:
            subnet = self._ec2.describe_subnets(SubnetIds=[subnet_id])["Subnets"][0]
            vpc = self._ec2.describe_vpcs(VpcIds=[subnet["VpcId"]])["Vpcs"][0]
            self._subnets[subnet_id] = subnet, vpc
        return self._subnets[subnet_id]

    def _role_of(self, profile_arn: str) -> str:
        name = profile_arn.rpartition("/")[2]
        profile = self._iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
        role: str = profile["Roles"][0]["RoleName"]
        return role

    def _assume_role(self, instance: InstanceData) -> RoleCredentials:
        """A session of the instance's role, which is named after the instance as on EC2."""
        answer = self._sts.assume_role(
            RoleArn=f"arn:aws:iam::{instance.account}:role/{instance.role}",
            RoleSessionName=instance.instance_id,
        )["Credentials"]
        return RoleCredentials(
            access_key_id=answer["AccessKeyId"],
            secret_access_key=answer["SecretAccessKey"],
            session_token=answer["SessionToken"],
            issued=datetime.datetime.now(datetime.UTC),
            expiration=answer["Expiration"],
        )
