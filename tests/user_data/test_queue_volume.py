"""`queue_volume/attach-queue-volume` on image files instead of an EBS volume."""

import os
import subprocess
from pathlib import Path

import pytest

import user_data

SCRIPT = Path(user_data.__file__).parent / "queue_volume/attach-queue-volume"
# Exit statuses, of which the unit knows the second.
TRIED_AGAIN, FOR_A_PERSON = 1, 2
SIZE = 8 * 1024 * 1024
ENVIRONMENT = {
    "QUEUE_VOLUME_ID": "vol-0123456789abcdef0",
    "REGION": "us-east-1",
    "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
}

pytestmark = pytest.mark.lab  # it takes Debian's e2fsprogs


def run(commands: str) -> subprocess.CompletedProcess[str]:
    """Run `commands` after the script's own functions are defined."""
    return subprocess.run(
        ["bash", "-c", f"source {SCRIPT}; {commands}"],
        check=False,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    image = tmp_path / "volume"
    with image.open("wb") as file:
        file.truncate(SIZE)
    return image


def make_file_system(volume: Path, *options: str) -> None:
    subprocess.run(["mkfs.ext4", "-q", *options, volume], check=True, env=ENVIRONMENT)


def superblock(volume: Path) -> dict[str, str]:
    listed = subprocess.run(
        ["dumpe2fs", "-h", volume], check=True, capture_output=True, text=True, env=ENVIRONMENT
    )
    pairs = (line.partition(":") for line in listed.stdout.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def identity(volume: Path) -> str:
    return superblock(volume)["Filesystem UUID"]


def blocks(volume: Path) -> int:
    return int(superblock(volume)["Block count"])


def prepare(volume: Path) -> subprocess.CompletedProcess[str]:
    """Everything the script does once the volume is attached; writes are left to its own tools."""
    return run(
        f"device={volume}; attach() {{ :; }}; ln() {{ echo linked; }};"
        f' fail() {{ echo "$2" >&2; exit "$1"; }}; main'
    )


def test_a_blank_volume_is_formatted_and_then_ours(volume: Path) -> None:
    assert run(f"contents {volume}").stdout == "blank\n"
    assert prepare(volume).stdout == "linked\n"
    assert run(f"contents {volume}").stdout == "ext4 postern-queue\n"


def test_our_own_volume_is_kept(volume: Path) -> None:
    prepare(volume)
    made = identity(volume)

    again = prepare(volume)

    assert (again.returncode, identity(volume)) == (0, made)


def test_a_volume_that_was_enlarged_gets_all_its_space(volume: Path) -> None:
    prepare(volume)
    made, small = identity(volume), blocks(volume)
    os.truncate(volume, 2 * SIZE)

    again = prepare(volume)

    assert again.returncode == 0, again.stderr
    assert (identity(volume), blocks(volume)) == (made, 2 * small)


@pytest.mark.parametrize("what", ["ext4", "swap", "partition table", "two signatures"])
def test_a_volume_with_anything_else_on_it_is_never_written_to(volume: Path, what: str) -> None:
    contents = bytearray(SIZE)
    if what == "ext4":
        make_file_system(volume, "-L", "somebodys-data")
        contents[:] = volume.read_bytes()
    if what in ("swap", "two signatures"):
        subprocess.run(["mkswap", volume], check=True, capture_output=True, env=ENVIRONMENT)
        contents[:] = volume.read_bytes()
    if what == "two signatures":
        contents[:4] = b"XFSB"
        contents[510:512] = b"\x55\xaa"
    if what == "partition table":
        contents[446:462] = bytes([0, 0, 2, 0, 0x83, 0, 9, 0]) + b"\x00\x08\0\0\x00\x10\0\0"
        contents[510:512] = b"\x55\xaa"
    volume.write_bytes(contents)

    refused = prepare(volume)

    assert refused.returncode == FOR_A_PERSON
    assert refused.stderr == "queue-volume-unknown-contents\n"
    assert volume.read_bytes() == contents


def test_our_own_volume_whose_superblock_is_lost_is_not_taken_for_a_blank_one(
    volume: Path,
) -> None:
    prepare(volume)
    contents = bytes(65536) + volume.read_bytes()[65536:]
    volume.write_bytes(contents)
    assert run(f"blkid --probe {volume}").stdout == ""

    refused = prepare(volume)

    assert refused.stderr == "queue-volume-unknown-contents\n"
    assert volume.read_bytes() == contents


def attach(aws_says: str) -> subprocess.CompletedProcess[str]:
    """Attach a volume that never becomes ours; time passes as fast as it is asked for."""
    return run(
        "device=/nonexistent; instance_id_file=/dev/null;"
        f" aws() {{ echo '{aws_says}' >&2; return 254; }};"
        " sleep() { SECONDS=$((SECONDS + 100)); echo waited; };"
        ' fail() { echo "$2" >&2; exit "$1"; }; attach'
    )


def test_a_volume_that_the_old_host_still_holds_is_waited_for() -> None:
    held = attach("An error occurred (VolumeInUse) when calling the AttachVolume operation")

    assert held.stdout.count("waited") >= 3
    assert held.stderr.endswith("queue-volume-busy\n")
    assert held.returncode == TRIED_AGAIN


def test_a_permission_that_is_not_known_everywhere_yet_is_waited_for() -> None:
    refused = attach("An error occurred (UnauthorizedOperation) when calling AttachVolume")

    assert refused.stdout.count("waited") >= 3
    assert refused.stderr.endswith("queue-volume-not-attached\n")
    assert refused.returncode == TRIED_AGAIN


def test_a_volume_that_does_not_exist_fails_at_once() -> None:
    refused = attach("An error occurred (InvalidVolume.NotFound) when calling AttachVolume")

    assert "waited" not in refused.stdout
    assert refused.stderr.endswith("queue-volume-not-attached\n")
    assert refused.returncode == FOR_A_PERSON


def test_aws_is_not_asked_again_once_it_has_agreed(tmp_path: Path) -> None:
    """EC2 would find the device's name in use, by this very volume."""
    asked = tmp_path / "asked"
    run(
        f"device=/nonexistent; instance_id_file=/dev/null; aws() {{ echo asked >>{asked}; }};"
        ' sleep() { SECONDS=$((SECONDS + 100)); }; fail() { exit "$1"; }; attach'
    )

    assert asked.read_text() == "asked\n"


def test_what_only_a_person_can_mend_is_not_tried_again() -> None:
    unit = (SCRIPT.parent / "queue-volume.service").read_text().splitlines()

    assert "Restart=on-failure" in unit
    assert f"RestartPreventExitStatus={FOR_A_PERSON}" in unit
