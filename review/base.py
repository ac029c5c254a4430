"""What a revision of the repository has: the side that a change is compared with."""

import io
import subprocess
import tarfile
from pathlib import Path

from ops.deployment import CannotTell
from review.snapshots import FOLDER, Files


def commit_of(revision: str, root: Path) -> str:
    """The commit's hash.

    Raises:
        CannotTell: `root` is not in a repository, or that has no such revision.
    """
    shown = _git(root, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    if shown is None:
        raise CannotTell(
            f"git knows no revision {revision!r} here: fetch it first, or name another with --base "
            "(make review BASE=origin/main)."
        )
    return shown.decode().strip()


def snapshots_at(commit: str, root: Path) -> Files:
    """The reviewed files as that commit has them.

    Raises:
        CannotTell: it has none.
    """
    archive = _git(root, "archive", "--format=tar", commit, str(FOLDER))
    if archive is None:
        raise CannotTell(
            f"{commit[:12]} has no {FOLDER} to compare with: name a later revision with --base."
        )
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        return {
            str(Path(member.name).relative_to(FOLDER)): stream.read().decode()
            for member in tar
            if (stream := tar.extractfile(member)) is not None
        }


def text_at(commit: str, file: Path, root: Path) -> str:
    """The file's text in that commit; empty when it has none."""
    return (_git(root, "show", f"{commit}:./{file}") or b"").decode()


def _git(root: Path, *arguments: str) -> bytes | None:
    """What git writes, or None when it refuses."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False)
    except FileNotFoundError:
        raise CannotTell("There is no `git`, which knows what a change is compared with.") from None
    if b"not a git repository" in done.stderr:
        raise CannotTell(
            f"{root.resolve()} is not in a git repository, which knows what a change is compared "
            "with."
        )
    return None if done.returncode else done.stdout
