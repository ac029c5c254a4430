"""EBS volumes: an image file each, shown to an instance as the NVMe device that EC2 shows."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.container import Container
from lab.instance.loop_device import LoopDevice, devices_of

_BY_ID = "/dev/disk/by-id"

# $1 device, $2 major, $3 minor, $4 link
_MAKE_NODES = """
mknod --mode=660 "$1" b "$2" "$3"
chgrp disk "$1"
mkdir -p "${4%/*}"
ln -sf "$1" "$4"
"""

# linux/fs.h: FS_IOC_SHUTDOWN, and from ext4.h the way that does not even flush the journal.
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = struct.pack("I", 2)

# The kernel lets go of a dead machine's mounts a moment after its last process: a busy one later.
_RELEASE_SECONDS = 120


class VolumeError(Exception):
    """A volume could not be attached; the text names it and says why."""


@dataclass(frozen=True)
class _Attachment:
    instance: str
    container: Container
    device: str
    loop: LoopDevice


class Volumes:
    """The volumes of the emulated account, as files in one directory.

    A volume's file outlives every instance that it is attached to, as its data does on EC2.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._attachments: dict[str, _Attachment] = {}

    @property
    def attached(self) -> dict[str, str]:
        """Volume id to the id of the instance that has its device."""
        return {volume: one.instance for volume, one in self._attachments.items()}

    def image(self, volume: str) -> Path:
        """The file that holds the contents of `volume`; not there before it is first attached."""
        return self._directory / f"{volume}.img"

    def wait_until_released(self, volume: str) -> None:
        """Return when no device, and so no mounted file system, writes to the image any more.

        Raises:
            VolumeError: something still has it after two minutes.
        """
        image = self.image(volume)
        deadline = time.monotonic() + _RELEASE_SECONDS
        while devices := devices_of(image):
            if time.monotonic() > deadline:
                names = ", ".join(map(str, devices))
                raise VolumeError(f"volume {volume} is still in use: {image} is behind {names}")
            time.sleep(0.05)

    def lose_power(self, instance: str) -> None:
        """Let nothing more reach the volumes of `instance`, as when its power fails.

        What its kernel has not yet written to the device is lost, and no file system is left clean;
        what it has written counts as kept, as on EBS. The image file itself stays in this machine's
        page cache: that the lab's own machine loses power is not imitated.

        Raises:
            OSError: a mounted file system cannot do that; ext4 can.
        """
        for attachment in self._attachments.values():
            if attachment.instance == instance:
                root = Path(f"/proc/{attachment.container.leader_pid}/root")
                for mount_point in _mount_points(root.parent, attachment.loop.number):
                    directory = os.open(root / mount_point.lstrip("/"), os.O_RDONLY)
                    try:
                        fcntl.ioctl(directory, _SHUTDOWN, _NO_LOG_FLUSH)
                    finally:
                        os.close(directory)

    def attach(self, *, volume: str, size_gib: int, instance: str, container: Container) -> None:
        """Make the device of `volume` and its by-id link appear inside `container`.

        The file is made on first use, sparse and blank, and grows with the volume.

        Raises:
            VolumeError: another machine's file system still has it, there is no free loop device,
                or the container is gone.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        self.wait_until_released(volume)  # two devices over one file would spoil it
        image = self.image(volume)
        with image.open("ab") as file:
            if file.tell() < size_gib << 30:
                file.truncate(size_gib << 30)
        try:
            loop = LoopDevice(image)
        except OSError as error:
            raise VolumeError(f"no loop device for volume {volume}: {error}") from error
        others = sum(one.instance == instance for one in self._attachments.values())
        device = f"/dev/nvme{others + 1}n1"  # nvme0n1 is the root volume
        major, minor = loop.number
        arguments = [device, str(major), str(minor), by_id_link(volume)]
        made = container.run(["sh", "-ec", _MAKE_NODES, "make-nodes", *arguments])
        if made.returncode:
            loop.close()
            raise VolumeError(f"no device for volume {volume}: {made.stderr.strip()}")
        self._attachments[volume] = _Attachment(instance, container, device, loop)

    def detach(self, volume: str) -> None:
        """Take the device of `volume` away from the instance that has it.

        A file system still mounted from it stays usable, unlike on EC2, until it is unmounted.
        """
        attachment = self._attachments.pop(volume)
        if attachment.container.running:
            attachment.container.run(["rm", "-f", attachment.device, by_id_link(volume)])
        attachment.loop.close()


def _mount_points(process: Path, number: tuple[int, int]) -> Iterator[str]:
    """Where the block device with this number is mounted, as `process` (/proc/PID) sees it."""
    device = f"{number[0]}:{number[1]}"
    for line in (process / "mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == device:
            yield fields[4]


def by_id_link(volume: str) -> str:
    """Where udev links a Nitro instance's device of `volume` (EBS user guide, NVMe volumes)."""
    return f"{_BY_ID}/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"
