"""The Debian 13 trees that the contenders boot from: one base, and each one's own packages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lab.images import root_filesystem
from user_data import PACKAGES

_BASE = (
    "ca-certificates",
    "dbus",
    "e2fsprogs",
    "init",
    "iproute2",
    "libnss-myhostname",
    "libnss-resolve",
    "netbase",
    "procps",
    "python3",
    "systemd-resolved",
    "udev",
)

IMAGES = {
    "postern": PACKAGES,
    "postfix": ("opendkim", "postfix"),
    # Both daemons can sign; the light one is what Debian installs unless told otherwise.
    "exim": ("exim4-daemon-light",),
}
"""Each image's packages beside those that all of them have."""


def image(name: str, *, cache: Path, progress: Callable[[str], None]) -> Path:
    """The read-only tree of that name, built on the first call (see `lab.images`)."""
    return root_filesystem(
        cache=cache,
        name=f"bench-{name}",
        packages=[*_BASE, *IMAGES[name]],
        customize=[
            'chroot "$1" systemctl --quiet enable systemd-networkd.service',
            'ln -sf /run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"',
        ],
        progress=progress,
    )
