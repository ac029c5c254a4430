"""Loop devices that the kernel takes down by itself once nobody has them open."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

# linux/loop.h
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_LO_FLAGS_AUTOCLEAR = 4
# struct loop_config: fd, block size, then struct loop_info64 (device, inode, rdevice, offset, size
# limit; number, encrypt type, key size, flags; names, key and init), reserved.
_LOOP_CONFIG = struct.Struct("=II 5Q 4I 64s 64s 32s 2Q 8Q")


class LoopDevice:
    """A file as a block device, while this object (or a mount of the device) is there.

    Opened with autoclear, so that it goes away with the process that made it, however that ends;
    `losetup` has no option for it.
    """

    def __init__(self, image: Path) -> None:
        """Attach `image` to a free loop device, `path`.

        Raises:
            OSError: the kernel has no free loop device, or this process may not use them.
        """
        self.path, self._descriptor = _configure(image)

    @property
    def number(self) -> tuple[int, int]:
        """The device's major and minor number."""
        device = os.fstat(self._descriptor).st_rdev
        return os.major(device), os.minor(device)

    def close(self) -> None:
        """Let go of the device; the kernel clears it when its last mount is gone too."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def devices_of(image: Path) -> list[Path]:
    """The loop devices that `image` is behind, anyone's; one lives on while its last mount does."""
    found = []
    for backing_file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(FileNotFoundError):  # cleared since it was listed
            if backing_file.read_text().rstrip("\n") == str(image):
                found.append(Path("/dev") / backing_file.parts[3])
    return found


def _configure(image: Path) -> tuple[Path, int]:
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            device = _free_device()
            descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(descriptor, _LOOP_CONFIGURE, _configuration(image, backing))
            except OSError as error:
                os.close(descriptor)
                if error.errno != errno.EBUSY:  # somebody else was faster to take it
                    raise
            else:
                return device, descriptor
    finally:
        os.close(backing)


def _free_device() -> Path:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        return Path(f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}")
    finally:
        os.close(control)


def _configuration(image: Path, backing: int) -> bytes:
    name = os.fsencode(image)[:63]
    info = (0, 0, 0, 0, 0, 0, 0, 0, _LO_FLAGS_AUTOCLEAR, name, b"", b"", 0, 0)
    return _LOOP_CONFIG.pack(backing, 0, *info, *[0] * 8)
