"""A partial mirror of Debian with just what instances install, byte for byte.

It holds the archive's own signed `InRelease` and `Packages.xz`, so apt inside the lab checks
signatures and hashes as it does anywhere, and the .debs of some packages with all they pull in.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lab.images import debian_archives, exclusive

# Keep index files as they came over the wire: their hashes are what InRelease signs.
_APT_OPTIONS = (
    "Acquire::GzipIndexes=true",
    "Acquire::CompressionTypes::Order::=xz",
    "Acquire::IndexTargets::deb::Packages::KeepCompressedAs=xz",
    "Acquire::Languages=none",
    "APT::Keep-Downloaded-Packages=true",
)

# A mirror is no longer used when this little is left before apt would call it expired.
_LEAST_VALIDITY = datetime.timedelta(hours=2)


class MirrorError(Exception):
    """The mirror could not be made; the text says why and what to do."""


def debian_mirror(
    *, cache: Path, image: Path, packages: Sequence[str], progress: Callable[[str], None]
) -> Path:
    """A directory to serve as `http://HOST/` for each of `lab.instance.image.mirror_hosts`.

    Holds what an instance booted from `image` fetches when it upgrades everything and installs
    `packages`, Recommends included, as cloud-init does. Found in `cache` while the archive's
    signatures on it are valid (a week for security updates), made anew otherwise, which takes
    the network. Needs root.

    Raises:
        MirrorError: apt failed; the text ends with its last lines.
    """
    recipe = [image.name, sorted(packages), debian_archives().sources(), _APT_OPTIONS]
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    mirror = cache / "mirrors" / key
    with exclusive(mirror.with_suffix(".lock")):
        if not is_fresh(mirror, datetime.datetime.now(datetime.UTC)):
            _build(mirror, image, packages, progress)
    return mirror


def is_fresh(mirror: Path, now: datetime.datetime) -> bool:
    """Whether `mirror` exists and none of its `InRelease` files is about to expire at `now`."""
    releases = list(mirror.glob("**/InRelease"))
    for release in releases:
        for line in release.read_text().splitlines():
            key, _, value = line.partition(": ")
            if key == "Valid-Until" and parsedate_to_datetime(value) - now < _LEAST_VALIDITY:
                return False
    return bool(releases)


def _build(
    mirror: Path, image: Path, packages: Sequence[str], progress: Callable[[str], None]
) -> None:
    for leftover in mirror.parent.glob(f".{mirror.name}.*"):  # of an interrupted build
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=f".{mirror.name}.", dir=mirror.parent) as directory:
        unfinished = Path(directory) / "mirror"
        with _scratch_copy(image, Path(directory)) as root:
            progress("fetching Debian's package lists")
            _apt_get(root, "update")
            # Given packages, it upgrades everything and installs these in one resolution.
            _copy_packages(root, unfinished, ["dist-upgrade", *packages], progress)
            _copy_indexes(root, unfinished)
        unfinished.chmod(0o755)
        if mirror.exists():  # expired
            mirror.rename(Path(directory) / "expired")
        unfinished.rename(mirror)


@contextmanager
def _scratch_copy(image: Path, directory: Path) -> Iterator[Path]:
    """`image`, mounted writable, with this machine's way to the archive."""
    root = directory / "root"
    for name in ("root", "upper", "work"):
        (directory / name).mkdir()
    options = f"lowerdir={image},upperdir={directory / 'upper'},workdir={directory / 'work'}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(root)], check=True)
    try:
        (root / "etc/resolv.conf").unlink()
        shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
        (root / "etc/apt/sources.list").write_text("\n".join(debian_archives().sources()) + "\n")
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=True)


def _apt_get(root: Path, *arguments: str) -> str:
    options = [word for option in _APT_OPTIONS for word in ("-o", option)]
    command = ["chroot", str(root), "apt-get", "--quiet", "--yes", *options, *arguments]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        last_lines = "\n".join((result.stdout + result.stderr).splitlines()[-15:])
        raise MirrorError(
            f"apt-get {' '.join(arguments)} failed while the lab's Debian mirror was made. "
            f"Check this machine's network and package names. Its last lines:\n{last_lines}"
        )
    return result.stdout


def _copy_packages(
    root: Path, mirror: Path, operation: Sequence[str], progress: Callable[[str], None]
) -> None:
    """Fetch what apt would fetch for `operation` to where the archive keeps it."""
    downloads = parse_print_uris(_apt_get(root, *operation, "--print-uris"))
    progress(f"fetching {len(downloads)} packages")
    _apt_get(root, *operation, "--download-only")
    for uri, file_name in downloads.items():
        target = mirror / _path_of(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / "var/cache/apt/archives" / file_name, target)


def parse_print_uris(text: str) -> dict[str, str]:
    """Map each URI of `apt-get --print-uris` to the file name that apt downloads it to."""
    downloads = {}
    for line in text.splitlines():
        if line.startswith("'"):
            uri, file_name = line.split()[:2]
            downloads[uri.strip("'")] = file_name
    return downloads


def _copy_indexes(root: Path, mirror: Path) -> None:
    """Copy `InRelease` and indexes from apt's lists to where the archive keeps them.

    An index also goes under `by-hash/`, where apt looks first.
    """
    targets = _apt_get(root, "indextargets", "--format", "$(URI) $(METAKEY) $(FILENAME)")
    for line in targets.splitlines():
        uri, metakey, file_name = line.split()
        suite = _path_of(uri.removesuffix(metakey))
        list_prefix = file_name.removesuffix(".xz").removesuffix(metakey.replace("/", "_"))
        release = mirror / suite / "InRelease"
        release.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(f"{root}{list_prefix}InRelease", release)
        index = mirror / suite / f"{metakey}.xz"
        by_hash = index.parent / "by-hash/SHA256"
        by_hash.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(f"{root}{file_name}", index)
        digest = hashlib.sha256(index.read_bytes()).hexdigest()
        (by_hash / digest).hardlink_to(index)


def _path_of(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path).lstrip("/"))
