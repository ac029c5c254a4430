"""An emulated EC2 instance that really boots, seen from inside and from outside."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.instance.hypervisor import Host
from lab.instance.volumes import by_id_link
from lab.network import INTERNET, Network
from lab.network.namespace import entered, listening_socket
from tests.lab.instance.conftest import ZONE, Account, Machine
from tests.lab.waiting import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.lab

RECEIVER = "198.51.100.25"
CONNECT = ["bash", "-c", f"exec 3<>/dev/tcp/{RECEIVER}/25 && head -c 1 <&3"]
FETCH = ["bash", "-c", "exec 3<>/dev/tcp/198.51.100.81/80"]


def run(host: Host, *argv: str) -> str:
    result = host.container.run(argv)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def wait_for_device(host: Host, link: str, *, there: bool) -> None:
    """Wait until a volume's device has come to the host, or has gone from it."""
    present = ["test", "-b" if there else "-e", link]
    eventually(lambda: (host.container.run(present).returncode == 0) == there)


@contextmanager
def receiver() -> Iterator[list[str]]:
    """Listens on port 25 of the Internet; yields the addresses that connected."""
    callers: list[str] = []
    listener = listening_socket(INTERNET, RECEIVER, 25)

    def answer() -> None:
        while True:
            try:
                connection, (address, _) = listener.accept()
            except OSError:  # shut down below
                return
            callers.append(address)
            connection.sendall(b"2")
            connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    yield callers
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


def test_cloud_init_ends_without_an_error(host: Host) -> None:
    assert "status: done\nextended_status: done\n" in run(host, "cloud-init", "status", "--long")
    assert run(host, "systemctl", "is-system-running", "--wait") == "running\n"


def test_cloud_init_takes_it_for_an_ec2_instance(host: Host) -> None:
    assert run(host, "cloud-init", "query", "cloud_name") == "aws\n"
    assert run(host, "cloud-init", "query", "instance_id") == f"{host.instance_id}\n"
    assert '"PUT /latest/api/token HTTP/1.1" 200' in host.metadata_log.read_text()


def test_what_user_data_prints_can_be_read_from_outside(host: Host) -> None:
    assert "said by user data" in host.user_data_log.read_text()
    assert "seen on the console" in host.console_log.read_text()
    assert any(host.journal.glob("*/system.journal"))


def test_apt_installs_from_the_mirror_what_debian_signed(host: Host) -> None:
    assert run(host, "hello") == "Hello, world!\n"
    assert "insecure" not in host.user_data_log.read_text()


def test_the_network_card_is_the_one_that_ec2_describes(host: Host, account: Account) -> None:
    described = account.ec2.describe_instances(InstanceIds=[host.instance_id])
    address = described["Reservations"][0]["Instances"][0]["PrivateIpAddress"]
    assert f"inet {address}/26 " in run(host, "ip", "address", "show", "dev", "ens5")
    assert address in run(host, "getent", "hosts", f"ip-{address.replace('.', '-')}.ec2.internal")


def test_it_is_seen_from_outside_under_the_elastic_ip(host: Host, account: Account) -> None:
    with receiver() as callers:
        run(host, *CONNECT)
    assert callers == [str(account.elastic_ip)]


def test_a_blocked_port_25_swallows_connections_and_no_others(host: Host, network: Network) -> None:
    with receiver() as callers:
        network.block_smtp(blocked=True)
        unanswered = host.container.run(["timeout", "2", *CONNECT])
        assert unanswered.returncode == 124  # nobody said no
        run(host, *FETCH)
        network.block_smtp(blocked=False)
        assert callers == []
        run(host, *CONNECT)


@pytest.mark.usefixtures("host")
def test_nothing_comes_in_from_the_internet(account: Account) -> None:
    with entered(INTERNET), pytest.raises(TimeoutError):
        socket.create_connection((str(account.elastic_ip), 22), timeout=1)


def test_a_volume_comes_and_goes_with_its_attachment(host: Host, account: Account) -> None:
    volume = account.ec2.create_volume(AvailabilityZone=ZONE, Size=3)["VolumeId"]
    link = by_id_link(volume)
    account.ec2.attach_volume(VolumeId=volume, InstanceId=host.instance_id, Device="/dev/sdf")
    wait_for_device(host, link, there=True)
    assert run(host, "blockdev", "--getsize64", link) == f"{3 << 30}\n"

    account.ec2.detach_volume(VolumeId=volume)
    wait_for_device(host, link, there=False)

    account.ec2.modify_volume(VolumeId=volume, Size=4)
    account.ec2.attach_volume(VolumeId=volume, InstanceId=host.instance_id, Device="/dev/sdf")
    wait_for_device(host, link, there=True)
    assert run(host, "blockdev", "--getsize64", link) == f"{4 << 30}\n"

    account.ec2.detach_volume(VolumeId=volume)
    wait_for_device(host, link, there=False)


def test_a_successor_finds_on_the_volume_what_its_predecessor_wrote(
    account: Account, machine: Machine, host: Host
) -> None:
    """`host` ends here; the tests below go on with its successor."""
    volume = account.ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"]
    link = by_id_link(volume)
    account.ec2.attach_volume(VolumeId=volume, InstanceId=host.instance_id, Device="/dev/sdf")
    wait_for_device(host, link, there=True)
    run(host, "mkfs.ext4", "-q", "-L", "mail-queue", link)

    account.ec2.terminate_instances(InstanceIds=[host.instance_id])
    successor = machine.wait_for_boot(account.launch())
    assert not host.container.running
    eventually(lambda: volume not in machine.hypervisor._volumes.attached)
    account.ec2.attach_volume(VolumeId=volume, InstanceId=successor.instance_id, Device="/dev/sdf")
    wait_for_device(successor, link, there=True)
    assert run(successor, "blkid", "--match-tag", "LABEL", "--output", "value", link) == (
        "mail-queue\n"
    )


def test_after_a_crash_the_volume_holds_what_had_reached_it_and_nothing_else(
    account: Account, machine: Machine
) -> None:
    (host,) = machine.hypervisor.hosts.values()
    volume = account.ec2.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"]
    link = by_id_link(volume)
    account.ec2.attach_volume(VolumeId=volume, InstanceId=host.instance_id, Device="/dev/sdg")
    wait_for_device(host, link, there=True)
    run(host, "mkfs.ext4", "-q", link)
    # Nothing is written but what is asked for: by itself it would be every five seconds.
    run(host, "mount", "-o", "commit=300", link, "/mnt")
    run(host, "sh", "-ec", "echo kept > /mnt/kept; sync /mnt/kept; echo lost > /mnt/lost")

    machine.hypervisor.crash(host.instance_id)

    described = account.ec2.describe_instances(InstanceIds=[host.instance_id])
    state = described["Reservations"][0]["Instances"][0]["State"]["Name"]
    assert state in ("shutting-down", "terminated")
    image = machine.hypervisor.volume_image(volume)
    superblock = subprocess.run(
        ["dumpe2fs", "-h", image], check=True, capture_output=True, text=True
    )
    assert "needs_recovery" in superblock.stdout  # it was not unmounted
    repaired = subprocess.run(["e2fsck", "-p", image], check=False, capture_output=True)
    assert repaired.returncode <= 1, repaired.stdout
    names = subprocess.run(
        ["debugfs", "-R", "ls -p /", image], check=True, capture_output=True, text=True
    )
    assert "/kept/" in names.stdout
    assert "/lost/" not in names.stdout


def test_no_machine_boots_while_launches_are_held_back(account: Account, machine: Machine) -> None:
    machine.hypervisor.hold_launches(held=True)
    waiting = account.launch()
    time.sleep(2)
    assert not machine.hypervisor.hosts

    machine.hypervisor.hold_launches(held=False)
    assert machine.wait_for_boot(waiting).container.running


def test_a_reboot_ends_what_somebody_had_run_inside(machine: Machine) -> None:
    """What stays holds the machine's end up, and its successor's, by the file systems it is in."""
    (host,) = machine.hypervisor.hosts.values()
    commands = [
        subprocess.Popen(host.container.enter_command(["sleep", "infinity"])) for _ in range(20)
    ]
    try:
        eventually(lambda: len(run(host, "pgrep", "sleep").split()) == len(commands))
        reboots = sum("reboots" in report for report in machine.reports)
        run(host, "systemctl", "--no-block", "reboot")
        for command in commands:
            command.wait(PATIENCE_SECONDS)
    finally:
        for command in commands:
            command.kill()
            command.wait()
    eventually(lambda: sum("reboots" in report for report in machine.reports) > reboots)


def test_a_stopped_hypervisor_leaves_no_mount_and_no_loop_device(machine: Machine) -> None:
    """Last of this file."""
    machine.hypervisor.stop()
    assert not any("Traceback" in report for report in machine.reports), machine.reports
    mounts = Path("/proc/self/mountinfo").read_text()
    loops = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    assert str(machine.state) not in mounts + "".join(loops)
