"""Faults of the queue volume, which outlives every host."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from lab.control import LabError
from lab.faults.trial import Fault, Trial
from lab.instance.loop_device import devices_of

_QUEUES = "/var/spool/queue"


def _busy(trial: Trial) -> None:
    with trial.full_queue(), ExitStack() as launches:
        launches.enter_context(trial.lab.hold_launches())
        old = trial.lab.crash_host()
        with trial.lab.queue_volume_in_use():
            launches.close()
            _wait_until_asking_for_the_volume(trial)
            time.sleep(30)
            trial.expect(_is_asking_for_the_volume(trial), "The volume was not busy")
        trial.go_on_after(old)


def _wait_until_asking_for_the_volume(trial: Trial) -> None:
    deadline = time.monotonic() + 300
    while not _is_asking_for_the_volume(trial):
        if time.monotonic() > deadline:
            raise LabError("No new host asked for the queue volume within 300 s.")
        time.sleep(0.5)


def _is_asking_for_the_volume(trial: Trial) -> bool:
    with suppress(LabError):  # no host yet
        state = trial.lab.run("systemctl", "is-active", "queue-volume.service").stdout
        return state == "activating\n"
    return False


def _blank(trial: Trial) -> None:
    """Nothing is queued before, since what is on a volume cannot outlive its loss."""
    with trial.lab.hold_launches():
        old = trial.lab.crash_host()
        image = trial.lab.queue_volume().image
        size = image.stat().st_size
        with image.open("wb") as file:
            file.truncate(size)
    trial.lab.wait_for_host(other_than=old)
    with trial.stream():
        pass
    trial.repaired()


def _dirty(trial: Trial) -> None:
    with trial.full_queue():
        with trial.lab.hold_launches():
            old = trial.lab.crash_host()
            features = _e2fs("dumpe2fs", "-h", trial.lab.queue_volume().image)
            trial.expect("needs_recovery" in features, "The crash left a clean file system")
        trial.go_on_after(old)


def _foreign(trial: Trial) -> None:
    def replace(image: Path) -> None:
        subprocess.run(["mkfs.minix", image], check=True, capture_output=True)

    def put_back(image: Path, original: Path) -> None:
        shutil.copyfile(original, image)

    _refused_until_repaired(trial, harm=replace, repair=put_back)


def _damaged(trial: Trial) -> None:
    def damage(image: Path) -> None:
        with image.open("r+b") as file:
            file.write(bytes(4096))  # where the superblock is: libblkid finds nothing now

    def repair(image: Path, _original: Path) -> None:
        # As an operator would: from the first backup of the superblock.
        subprocess.run(["e2fsck", "-y", "-b", "32768", image], check=False, capture_output=True)

    _refused_until_repaired(trial, harm=damage, repair=repair)


def _found_damaged_in_use(trial: Trial) -> None:
    """The kernel finds an error in the mounted file system; an operator ends the host."""
    with trial.full_queue() as stream:
        (device,) = devices_of(trial.lab.queue_volume().image)
        Path("/sys/fs/ext4", device.name, "trigger_fs_error").write_text("harm on purpose")
        trial.expect(
            trial.lab.run("touch", f"{_QUEUES}/written").returncode,
            "A file system that was found damaged was still written to",
        )
        stream.wait_for_refusals(20)  # each session's words to before are heard now
        already = len(stream.accepted)
        stream.wait_for_refusals(100)
        trial.expect(len(stream.accepted) == already, "A damaged file system took mail")
        trial.note(f"{sum(stream.refusals.values())} submissions refused, none taken")
        trial.go_on_after(trial.lab.crash_host())


def _full(trial: Trial) -> None:
    with trial.full_queue(until=0.4) as stream:
        trial.run(
            f"free=$(df --block-size=1 --output=avail {_QUEUES} | tail -1);"
            f"fallocate --length $((free - 8000000)) {_QUEUES}/filler;"
            f"! cat /dev/zero >>{_QUEUES}/filler"  # until there is no space left
        )
        already = len(stream.accepted)
        time.sleep(35)  # what is being tried is deferred meanwhile, which has to be written down
        refused = sum(count for words, count in stream.refusals.items() if words.startswith("4"))
        trial.expect(refused, f"A full queue refused nothing: {dict(stream.refusals)}")
        trial.note(
            f"{refused} submissions refused with 4xx, {len(stream.accepted) - already} taken"
        )
        trial.run(f"rm {_QUEUES}/filler")
        trial.lab.block_smtp(blocked=False)
        trial.repaired()
    trial.flush()


def _refused_until_repaired(
    trial: Trial, *, harm: Callable[[Path], None], repair: Callable[[Path, Path], None]
) -> None:
    """The successor must not touch a volume that `harm` was done to, and take the repaired one."""
    with trial.full_queue():
        with trial.lab.hold_launches():
            old = trial.lab.crash_host()
            image = trial.lab.queue_volume().image
            original = image.with_suffix(".original")
            subprocess.run(["cp", "--sparse=always", image, original], check=True)
            harm(image)
            harmed = _digest(image)
        try:
            trial.lab.wait_for_host(other_than=old)
        except LabError as refusal:
            trial.expect("queue-volume-unknown-contents" in str(refusal), str(refusal))
        else:
            trial.expect(False, "A host went live on a volume that was not its own")
        with trial.lab.hold_launches():
            refusing = trial.lab.crash_host()
            trial.lab.queue_volume()  # waits until the host's machine is gone
            trial.expect(_digest(image) == harmed, "The host wrote to a volume not its own")
            repair(image, original)
            original.unlink()
        trial.go_on_after(refusing)


def _digest(image: Path) -> str:
    with image.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _e2fs(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


FAULTS = (
    Fault(name="queue volume busy for half a minute", inflict=_busy),
    Fault(name="queue volume blank", inflict=_blank),
    Fault(name="queue volume dirty", inflict=_dirty),
    Fault(name="queue volume with another file system, then put back", inflict=_foreign),
    Fault(name="queue volume damaged, then repaired by hand", inflict=_damaged),
    Fault(name="queue volume found damaged while in use", inflict=_found_damaged_in_use),
    Fault(name="queue volume full", inflict=_full),
)
