"""The root file system of the instance: what Debian's official EC2 image has, in a container.

The image's own build recipe says what that is (Debian Cloud team, `debian-cloud-images`,
`config_space/13`: package_config/{DEBIAN,SYSTEM_BOOT,CLOUD,EC2,EXTRAS}). Left out is what makes
sense on hardware only: kernel, boot loader, initramfs, AppArmor.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from lab.images import ImageError, debian_archives, root_filesystem
from lab.places import lab_number

_PACKAGES = (
    # base system
    "apt-utils",
    "dbus",
    "init",
    "iproute2",
    "iptables",
    "iputils-ping",
    "less",
    "libnss-myhostname",
    "libnss-resolve",
    "libpam-systemd",
    "linux-sysctl-defaults",
    "locales",
    "nano",
    "netbase",
    "netplan.io",
    "polkitd",
    "sudo",
    "systemd-resolved",
    "udev",
    "unattended-upgrades",
    "vim-tiny",
    "whiptail",
    "zstd",
    # cloud images, EC2's among them
    "awscli",
    "chrony",
    "cloud-guest-utils",
    "cloud-init",
    "openssh-server",
    "ssh-import-id",
    # the comforts of a full image
    "bash-completion",
    "bind9-host",
    "ca-certificates",
    "curl",
    "ethtool",
    "man-db",
    "procps",
    "psmisc",
    "screen",
    "socat",
    "tcpdump",
    "traceroute",
    "uuid-runtime",
    "xz-utils",
)

_FILES = Path(__file__).parent / "files"

_DMI = {
    "sys_vendor": "Amazon EC2",
    "chassis_asset_tag": "Amazon EC2",
    "product_uuid": "ec2e1916-9099-7caf-fd21-012345abcdef",
    "product_serial": "ec2e1916-9099-7caf-fd21-012345abcdef",
}


def instance_image(*, cache: Path, progress: Callable[[str], None]) -> Path:
    """The read-only tree that instances boot from; see `lab.images.root_filesystem`."""
    sources = [_over_plain_http(line) for line in debian_archives().sources()]
    return root_filesystem(
        cache=cache,
        name="instance",
        packages=_PACKAGES,
        customize=[
            f"printf '%s\\n' {shlex.join(sources)} > \"$1/etc/apt/sources.list\"",
            'chroot "$1" systemctl --quiet enable systemd-networkd.service',
            'ln -sf /run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"',
            'rm -f "$1"/etc/ssh/ssh_host_*',  # each instance's own: cloud-init makes them
            # Many machines that start at once wait a random second or two first; here is one.
            'echo nodelay >> "$1/etc/dhcpcd.conf"',
        ],
        progress=progress,
    )


def mirror_hosts(image: Path) -> tuple[str, ...]:
    """The host names that the apt sources of `image` give, for which the lab's mirror answers."""
    sources = (image / "etc/apt/sources.list").read_text().splitlines()
    uris = (source.split()[1] for source in sources if source.startswith("deb "))
    return tuple(sorted({urlsplit(uri).hostname or "" for uri in uris}))


def prepare_instance(root: Path, *, ca_certificate: Path) -> None:
    """Make the mounted tree `root` the disk of an EC2 instance that trusts the lab's own CA."""
    shutil.copytree(_FILES, root, dirs_exist_ok=True)
    (root / "etc/netplan/90-default.yaml").chmod(0o600)  # netplan warns about any other
    _fake_dmi(root)
    _number_users_apart(root)
    authority = root / "usr/local/share/ca-certificates/lab.crt"
    shutil.copyfile(ca_certificate, authority)
    subprocess.run(["chroot", root, "update-ca-certificates"], check=True, capture_output=True)


def _over_plain_http(source: str) -> str:
    """An apt source line as the lab's mirror serves it: port 80, no TLS.

    What apt trusts are the archive's signatures, whatever carries them.
    """
    kind, uri, rest = source.split(maxsplit=2)
    parts = urlsplit(uri)
    return f"{kind} http://{parts.hostname}{parts.path} {rest}"


def _number_users_apart(root: Path) -> None:
    """Give packages' users numbers that they have in no other lab of this machine.

    How many processes a user may have is counted over the whole machine (setrlimit(2)).
    """
    if number := lab_number():
        with (root / "etc/adduser.conf").open("a") as settings:
            settings.write(f"FIRST_SYSTEM_UID={100 + 100 * number}\n")


def _fake_dmi(root: Path) -> None:
    """Let cloud-init recognise EC2 as it does on real hardware.

    It knows EC2 by the firmware's DMI data, but reads none inside a container, and then would not
    even ask for the token that the metadata service requires. This is the lab's one change to
    cloud-init: where it looks, and that it looks.
    """
    dmi = root / "etc/lab-dmi"
    dmi.mkdir()
    for key, value in _DMI.items():
        (dmi / key).write_text(value + "\n")
    module = root / "usr/lib/python3/dist-packages/cloudinit/dmi.py"
    source = module.read_text()
    for original, replacement in (
        ('DMI_SYS_PATH = "/sys/class/dmi/id"', 'DMI_SYS_PATH = "/etc/lab-dmi"'),
        ("    if is_container():", "    if False:"),
    ):
        if source.count(original) != 1:
            raise ImageError(
                f"{module.name} of this cloud-init has no single line {original!r}. "
                "Adapt lab/instance/image.py to this cloud-init."
            )
        source = source.replace(original, replacement)
    module.write_text(source)
