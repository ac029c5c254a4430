"""Debian 13 root file systems for the lab, built once by mmdebstrap and kept in a cache.

A tree is the read-only lower layer of every container booted from it (see `lab.container`), so it
is built into a temporary directory and renamed: a tree under its final name is a whole one.
"""

from __future__ import annotations

import collections
import fcntl
import functools
import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SUITE = "trixie"

# Neither is read by anything in the lab, and both are a third of the time and space of a build.
_NOT_UNPACKED = ("/usr/share/doc/*", "/usr/share/man/*")

# `force-unsafe-io`: a tree that a power cut spoils is built again. dpkg would otherwise spend most
# of the build, and of every apt-get in the lab, waiting for the disk.
_DPKG_OPTIONS = ("force-unsafe-io", *(f"path-exclude={pattern}" for pattern in _NOT_UNPACKED))


class ImageError(Exception):
    """A root file system could not be built; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class DebianArchives:
    """Where this machine's own apt fetches Debian from.

    `main` and `security` are repository URIs as apt takes them, without a trailing slash.
    """

    main: str
    security: str

    def sources(self, suite: str = SUITE) -> list[str]:
        """The one-line apt sources of `suite`, its updates and its security updates."""
        return [
            f"deb {self.main} {suite} main",
            f"deb {self.main} {suite}-updates main",
            f"deb {self.security} {suite}-security main",
        ]


@functools.cache
def debian_archives(apt_options: tuple[str, ...] = ()) -> DebianArchives:
    """Ask apt which Debian archives this machine uses.

    apt itself is asked, not its files: it knows both of their formats, and each archive's `Origin`
    tells Debian's own from a vendor's that happens to use the same suite names.
    `apt_options` are further `-o` settings for apt-get.

    Raises:
        ImageError: apt knows no such archive, most often because its lists were never fetched.
    """
    targets = subprocess.run(
        [
            "apt-get",
            *(argument for option in apt_options for argument in ("-o", option)),
            "indextargets",
            "--format",
            "$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)",
            "Created-By: Packages",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return parse_index_targets(targets.stdout)


def parse_index_targets(text: str) -> DebianArchives:
    """Find Debian's archives in lines of `origin component codename repository-uri`.

    Raises:
        ImageError: the main or the security archive is not among them.
    """
    main = security = ""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) != 4 or fields[:2] != ["Debian", "main"]:
            continue
        codename, uri = fields[2], _resolve_mirror_file(fields[3]).rstrip("/")
        if codename.endswith("-security"):
            security = security or uri
        elif "-" not in codename:
            main = main or uri
    if not main or not security:
        missing = "main" if not main else "security"
        raise ImageError(
            f"apt on this machine knows no Debian {missing} archive. "
            "Run `apt-get update`; if that does not help, add Debian's archive to /etc/apt."
        )
    return DebianArchives(main=main, security=security)


def _resolve_mirror_file(uri: str) -> str:
    """Replace `mirror+file:PATH` (Debian's cloud images) with the first mirror that PATH lists."""
    scheme, _, path = uri.partition(":")
    if scheme != "mirror+file":
        return uri
    for line in Path("/" + path.strip("/")).read_text().splitlines():
        if fields := line.split("#")[0].split():
            return fields[0]
    raise ImageError(f"{path} lists no mirror. Name Debian's archive there.")


def root_filesystem(
    *,
    cache: Path,
    name: str,
    packages: Sequence[str],
    variant: str = "minbase",
    customize: Sequence[str] = (),
    progress: Callable[[str], None],
) -> Path:
    """A directory holding a Debian 13 tree with `packages` installed, for use as a lower layer.

    Built on the first call, found in `cache` afterwards: the directory's name carries a hash of
    the whole mmdebstrap command. `variant` is mmdebstrap's. Each of `customize` is a shell command
    that mmdebstrap runs at the end with the tree as `$1`; `progress` gets a line for each stage.
    Needs root. Nobody may write into the tree.

    Raises:
        ImageError: mmdebstrap failed; the text ends with its last lines.
    """
    sources = debian_archives().sources()

    def command(target: str) -> list[str]:
        return _mmdebstrap(target, sources, packages, variant, customize)

    key = hashlib.sha256(json.dumps(command("")).encode()).hexdigest()[:16]
    tree = cache / "images" / f"{name}-{key}"
    with exclusive(tree.with_suffix(".lock")):
        if not tree.is_dir():
            _build(tree, command, progress)
    return tree


def mount_writable(tree: Path, state: Path) -> None:
    """Mount `tree` on `state/root`, afresh, with what changes there going to `state/upper`.

    In the caller's mount namespace. `state` is created.
    """
    root, upper, work = state / "root", state / "upper", state / "work"
    for directory in (upper, work):
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True)
    root.mkdir(exist_ok=True)
    # `volatile`: nothing here has to survive a power cut, so no fsync inside, dpkg's and the mail
    # servers' above all, waits for the disk.
    options = f"lowerdir={tree},upperdir={upper},workdir={work},volatile"
    subprocess.run(
        ["mount", "-t", "overlay", f"--options={options}", "overlay", str(root)], check=True
    )


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold the lock file `lock`, waiting for another holder to finish.

    The kernel lets go of the lock when its holder dies, so a lock file left behind means nothing.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _mmdebstrap(
    target: str,
    sources: Sequence[str],
    packages: Sequence[str],
    variant: str,
    customize: Sequence[str],
) -> list[str]:
    return [
        "mmdebstrap",
        "--mode=root",
        "--format=directory",
        f"--variant={variant}",
        f"--include={','.join(sorted(packages))}",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
        # The builder's own name and resolver, copied in by mmdebstrap.
        '--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname"; : > "$1/etc/machine-id"',
        # Recommends are left out of the image only; what is installed later gets apt's default.
        '--customize-hook=rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"',
        *(f"--customize-hook={hook}" for hook in customize),
        SUITE,
        target,
        *sources,
    ]


def _build(
    tree: Path, command: Callable[[str], list[str]], progress: Callable[[str], None]
) -> None:
    for leftover in tree.parent.glob(f".{tree.name}.*"):  # of an interrupted build
        shutil.rmtree(leftover)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{tree.name}.", dir=tree.parent))
    unfinished.chmod(0o755)  # it becomes the container's /
    try:
        _run_reporting(command(str(unfinished)), progress)
        unfinished.replace(tree)
    except BaseException:  # Ctrl-C too: a half-made tree is of no use to anyone
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _run_reporting(command: Sequence[str], progress: Callable[[str], None]) -> None:
    """Run mmdebstrap, passing its `I:` lines to `progress`, but not those that repeat a hook."""
    last_lines: collections.deque[str] = collections.deque(maxlen=15)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as builder:
        assert builder.stdout is not None
        for line in builder.stdout:
            last_lines.append(line.rstrip())
            if line.startswith("I: ") and not line.startswith("I: running --"):
                progress(line[3:].rstrip())
    if builder.returncode:
        raise ImageError(
            f"mmdebstrap ended with status {builder.returncode}. Its last lines:\n"
            + "\n".join(last_lines)
        )
