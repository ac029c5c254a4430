"""A lab of one booted instance: an emulated account, its network, and a stand-in Internet."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from lab.cloud.cloud import Cloud
from lab.container import sweep_cgroups
from lab.instance.hypervisor import Host, Hypervisor
from lab.instance.image import instance_image, mirror_hosts
from lab.instance.mirror import debian_mirror
from lab.internet.certificates import CertificateAuthority
from lab.network import INTERNET, Network
from lab.network.namespace import command_in
from lab.places import Places
from tests.lab.namespaces import hidden_from_the_machine
from tests.lab.waiting import PATIENCE_SECONDS, eventually

ZONE = "us-east-1a"
REGION = "us-east-1"

_DNS_SERVER = "198.51.100.53"
_MIRROR = "198.51.100.81"

_USER_DATA = """\
#cloud-config
package_update: true
package_upgrade: true
packages: [hello]
runcmd:
  - echo said by user data
  - echo seen on the console > /dev/console
"""


@dataclass
class Account:
    """An emulated AWS account with one VPC behind a NAT gateway."""

    client: Callable[[str], Any]
    ec2: Any
    subnet: str
    elastic_ip: IPv4Address

    def launch(self) -> str:
        """Run an instance; return its id."""
        instances = self.ec2.run_instances(
            ImageId="ami-0deb1a00000000a64",
            InstanceType="t3.small",
            MinCount=1,
            MaxCount=1,
            SubnetId=self.subnet,
            UserData=_USER_DATA,
            IamInstanceProfile={"Name": "mail-profile"},
        )
        return str(instances["Instances"][0]["InstanceId"])


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    cloud = Cloud(
        python=Places().emulator_python,
        state=tmp_path_factory.mktemp("cloud"),
        cdk=Places().cdk,
        progress=print,
        shutdown_seconds=0.3,
    )
    cloud.start()
    ec2, iam = cloud.client("ec2"), cloud.client("iam")
    vpc = ec2.create_vpc(CidrBlock="10.40.0.0/24")["Vpc"]["VpcId"]
    public, private = (
        ec2.create_subnet(VpcId=vpc, CidrBlock=cidr, AvailabilityZone=ZONE)["Subnet"]["SubnetId"]
        for cidr in ("10.40.0.0/28", "10.40.0.64/26")
    )
    address = ec2.allocate_address(Domain="vpc")
    ec2.create_nat_gateway(SubnetId=public, AllocationId=address["AllocationId"])
    iam.create_role(RoleName="mail-role", AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="mail-profile")
    iam.add_role_to_instance_profile(InstanceProfileName="mail-profile", RoleName="mail-role")
    yield Account(
        client=cloud.client, ec2=ec2, subnet=private, elastic_ip=IPv4Address(address["PublicIp"])
    )
    cloud.stop()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """The lab's namespaces."""
    with hidden_from_the_machine():
        network = Network(state=tmp_path_factory.mktemp("network"), region=REGION)
        network.up([ZONE])
        yield network
        network.down()


@pytest.fixture(scope="module")
def image() -> Path:
    return instance_image(cache=Places().cache, progress=print)


@pytest.fixture(scope="module")
def internet(
    network: Network,  # noqa: ARG001 - has to be up
    image: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """DNS that knows the Debian mirror, and the mirror."""
    state = tmp_path_factory.mktemp("internet")
    mirror = debian_mirror(cache=Places().cache, image=image, packages=["hello"], progress=print)
    configuration = state / "dnsmasq.conf"
    names = [f"address=/{name}/{_MIRROR}" for name in mirror_hosts(image)]
    listen = ["no-resolv", "no-hosts", "user=root", "bind-interfaces"]
    configuration.write_text("\n".join([*listen, f"listen-address={_DNS_SERVER}", *names, ""]))
    web_server = [sys.executable, "-m", "http.server", "--bind", _MIRROR, "80"]
    servers = [
        subprocess.Popen(command_in(INTERNET, command), stderr=subprocess.DEVNULL)
        for command in (
            ["dnsmasq", "--keep-in-foreground", f"--conf-file={configuration}"],
            [*web_server, "--directory", str(mirror)],
        )
    ]
    yield
    for server in servers:
        server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE_SECONDS)


@dataclass
class Machine:
    """The hypervisor, what it reported, and its state directory."""

    hypervisor: Hypervisor
    reports: list[str]
    state: Path

    def wait_for_boot(self, instance_id: str) -> Host:
        found = eventually(
            lambda: self.hypervisor.hosts.get(instance_id), explain=lambda: self.reports
        )
        assert found is not None
        return found


@pytest.fixture(scope="module")
def machine(
    account: Account,
    network: Network,
    image: Path,
    internet: None,  # noqa: ARG001 - has to be up
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Machine]:
    state = tmp_path_factory.mktemp("hypervisor")
    sweep_cgroups()
    reports: list[str] = []
    hypervisor = Hypervisor(
        client=account.client,
        region=REGION,
        image=image,
        network=network,
        state=state,
        ca_certificate=CertificateAuthority(state / "tls").certificate,
        report=reports.append,
    )
    hypervisor.start()
    yield Machine(hypervisor, reports, state)
    hypervisor.stop()


@pytest.fixture(scope="module")
def host(account: Account, machine: Machine) -> Host:
    """A booted instance that cloud-init is done with."""
    host = machine.wait_for_boot(account.launch())
    result = ["test", "-e", "/run/cloud-init/result.json"]
    eventually(lambda: host.container.run(result).returncode == 0, seconds=300)
    return host
