"""The instance's disk: what is changed about a Debian tree, and nothing else."""

import runpy
from pathlib import Path

import pytest

from lab.images import ImageError
from lab.instance import image

CLOUD_INIT_DMI = """\
DMI_SYS_PATH = "/sys/class/dmi/id"

def is_container():
    return True

def read_dmi_data():
    if is_container():
        return None
    return DMI_SYS_PATH
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """As much of a Debian tree as cloud-init's DMI module."""
    module = tmp_path / "usr/lib/python3/dist-packages/cloudinit/dmi.py"
    module.parent.mkdir(parents=True)
    module.write_text(CLOUD_INIT_DMI)
    (tmp_path / "etc").mkdir()
    return tmp_path


def test_cloud_init_finds_the_firmware_of_an_ec2_instance(root: Path) -> None:
    image._fake_dmi(root)

    module = runpy.run_path(str(root / "usr/lib/python3/dist-packages/cloudinit/dmi.py"))
    directory = root / module["read_dmi_data"]().lstrip("/")
    assert (directory / "chassis_asset_tag").read_text() == "Amazon EC2\n"
    # DataSourceEc2: the serial is the UUID, and begins with ec2.
    uuid, serial = ((directory / f"product_{key}").read_text() for key in ("uuid", "serial"))
    assert uuid == serial
    assert uuid.startswith("ec2")


def test_another_cloud_init_is_refused_instead_of_half_patched(root: Path) -> None:
    module = root / "usr/lib/python3/dist-packages/cloudinit/dmi.py"
    module.write_text(CLOUD_INIT_DMI.replace("if is_container():", "if in_container():"))

    with pytest.raises(ImageError, match=r"lab/instance/image\.py"):
        image._fake_dmi(root)


def test_the_mirror_answers_for_the_hosts_in_the_images_own_sources(tmp_path: Path) -> None:
    (tmp_path / "etc/apt").mkdir(parents=True)
    (tmp_path / "etc/apt/sources.list").write_text(
        "deb http://debian.example.edu/debian trixie main\n"
        "\n"
        "deb http://debian.example.edu/debian trixie-updates main\n"
        "deb http://security.example.edu trixie-security main\n"
    )
    assert image.mirror_hosts(tmp_path) == ("debian.example.edu", "security.example.edu")


@pytest.mark.parametrize(
    ("archive", "served"),
    [
        ("https://debian.example.edu/debian", "http://debian.example.edu/debian"),
        ("http://debian.example.edu:3142/debian", "http://debian.example.edu/debian"),
    ],
)
def test_instances_fetch_packages_over_plain_http_on_port_80(archive: str, served: str) -> None:
    assert image._over_plain_http(f"deb {archive} trixie main") == f"deb {served} trixie main"
