"""EBS volumes: an image file each, shown to an instance as the NVMe device that EC2 shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.container import Container
from lab.instance.loop_device import LoopDevice

_BY_ID = "/dev/disk/by-id"

# $1 device, $2 major, $3 minor, $4 link
_MAKE_NODES = """
mknod --mode=660 "$1" b "$2" "$3"
chgrp disk "$1"
mkdir -p "${4%/*}"
ln -sf "$1" "$4"
"""


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

    def attach(self, *, volume: str, size_gib: int, instance: str, container: Container) -> None:
        """Make the device of `volume` and its by-id link appear inside `container`.

        The file is made on first use, sparse and blank, as large as the volume.

        Raises:
            VolumeError: no free loop device, or the container is gone.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        image = self._directory / f"{volume}.img"
        if not image.exists():
            with image.open("wb") as file:
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


def by_id_link(volume: str) -> str:
    """Where udev links a Nitro instance's device of `volume` (EBS user guide, NVMe volumes)."""
    return f"{_BY_ID}/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"
