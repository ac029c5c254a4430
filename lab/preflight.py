"""Whether this machine can run the lab, asked before anything is touched."""

import os
import platform
import shutil
from pathlib import Path

from lab.places import Places

_PROGRAMS = {
    "dnsmasq": "dnsmasq-base",
    "ip": "iproute2",
    "losetup": "mount",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "nsenter": "util-linux",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
}
_WITHOUT_THE_LAB = "`make synth` and `make check` work here without it."


class CannotRunHere(Exception):
    """This machine lacks something the lab needs; the text says what, and what still works."""


def require_a_fit_machine(places: Places) -> None:
    """Look for Debian 12 or 13 on amd64, root, and what `make try` installs.

    Raises:
        CannotRunHere: one of them is missing; nothing was touched.
    """
    release = _os_release()
    system = release.get("PRETTY_NAME", platform.system())
    if (release.get("ID"), release.get("VERSION_ID")) not in {("debian", "12"), ("debian", "13")}:
        raise CannotRunHere(
            f"The lab needs Debian 12 or 13 and this is {system}. {_WITHOUT_THE_LAB}"
        )
    if platform.machine() != "x86_64":
        raise CannotRunHere(
            f"The lab boots amd64 hosts, and this machine is {platform.machine()}. "
            f"{_WITHOUT_THE_LAB}"
        )
    if os.geteuid() != 0:
        raise CannotRunHere(
            "The lab makes network namespaces and boots containers, which takes root: "
            f"`sudo make try`, or `sudo .venv/bin/postern lab up`. {_WITHOUT_THE_LAB}"
        )
    missing = sorted({package for name, package in _PROGRAMS.items() if not shutil.which(name)})
    if missing:
        raise CannotRunHere(f"The lab needs these packages: apt-get install {' '.join(missing)}")
    for path, target in (
        (places.cdk, "the CDK command line"),
        (places.emulator_python, "the emulated AWS"),
    ):
        if not path.exists():
            raise CannotRunHere(f"{target} is not installed: run `make try`, which installs it.")


def _os_release() -> dict[str, str]:
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key: value.strip('"') for key, _, value in pairs}
