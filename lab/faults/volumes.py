"""Faults of the queue volume, which outlives every host."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lab.control import LabError
from lab.faults.stream import Stream
from lab.faults.trial import Fault, Trial

_QUEUES = "/var/spool/queue"


def _busy(trial: Trial) -> None:
    with _full_queue(trial) as stream, ExitStack() as launches:
        launches.enter_context(trial.lab.hold_launches())
        old = trial.lab.crash_host()
        with trial.lab.queue_volume_in_use():
            launches.close()
            time.sleep(40)  # the successor has asked for the volume again and again
        _go_on(trial, stream, old)


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
    with _full_queue(trial) as stream:
        with trial.lab.hold_launches():
            old = trial.lab.crash_host()
            features = _e2fs("dumpe2fs", "-h", trial.lab.queue_volume().image)
            trial.expect("needs_recovery" in features, "The crash left a clean file system")
        _go_on(trial, stream, old)


def _foreign(trial: Trial) -> None:
    def replace(image: Path) -> None:
        subprocess.run(["mkfs.minix", image], check=True, capture_output=True)

    def put_back(image: Path, original: Path) -> None:
        shutil.copyfile(original, image)

    _refused_until_repaired(trial, harm=replace, repair=put_back)


def _damaged(trial: Trial) -> None:
    def damage(image: Path) -> None:
        with image.open("r+b") as file:
            file.write(bytes(1 << 20))  # the superblock is in there, and looks blank now

    def repair(image: Path, _original: Path) -> None:
        # As an operator would: from the first backup of the superblock.
        subprocess.run(["e2fsck", "-y", "-b", "32768", image], check=False, capture_output=True)

    _refused_until_repaired(trial, harm=damage, repair=repair)


def _full(trial: Trial) -> None:
    with _full_queue(trial, until=0.4) as stream:
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
        trial.repaired()


@contextmanager
def _full_queue(trial: Trial, *, until: float = 0.7) -> Iterator[Stream]:
    """A stream of which this share is accepted; nothing leaves before the context ends."""
    trial.lab.block_smtp(blocked=True)
    try:
        with trial.stream() as stream:
            stream.wait_until(share=until)
            yield stream
    finally:
        trial.lab.block_smtp(blocked=False)
    trial.flush(after_silence=True)


def _go_on(trial: Trial, stream: Stream, old: str) -> None:
    trial.lab.wait_for_host(other_than=old)
    trial.repaired()
    stream.go_on()


def _refused_until_repaired(
    trial: Trial, *, harm: Callable[[Path], None], repair: Callable[[Path, Path], None]
) -> None:
    """The successor must not touch a volume that `harm` was done to, and take the repaired one."""
    with _full_queue(trial) as stream:
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
        _go_on(trial, stream, refusing)


def _digest(image: Path) -> str:
    with image.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _e2fs(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


FAULTS = (
    Fault(name="queue volume busy for 40 seconds", inflict=_busy),
    Fault(name="queue volume blank", inflict=_blank),
    Fault(name="queue volume dirty", inflict=_dirty),
    Fault(name="queue volume with another file system, then put back", inflict=_foreign),
    Fault(name="queue volume damaged, then repaired by hand", inflict=_damaged),
    Fault(name="queue volume full", inflict=_full),
)
