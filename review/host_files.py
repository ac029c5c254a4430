"""What a host gets, for people and for tests: its user data, and the archive that it unpacks."""

import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import NamedTuple


class File(NamedTuple):
    """A file on the host; `mode` as chmod takes it."""

    mode: str
    content: str


def settings_of(document: str) -> Mapping[str, str]:
    """The deployment's values that the user data writes to /etc/postern/settings."""
    return dict(re.findall(r"^      ([A-Z0-9_]+)=(\S+)$", document, re.MULTILINE))


def written(document: str) -> Mapping[str, File]:
    """The files in the user data itself, by path."""
    items = re.findall(
        r"^  - path: (\S+)\n    permissions: '(\d{4})'\n    content: \|\n((?:      .*\n|\n)+)",
        document,
        re.MULTILINE,
    )
    return {
        path: File(mode, re.sub("^      ", "", text, flags=re.MULTILINE).rstrip("\n") + "\n")
        for path, mode, text in items
    }


def unpacked(archive: bytes) -> Mapping[str, File]:
    """The files that an archive puts on the host, by path."""

    def members() -> Iterator[tuple[str, File]]:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            for member in tar:
                stream = tar.extractfile(member)
                assert stream is not None, f"{member.name} is not a plain file"
                yield f"/{member.name}", File(f"{member.mode:04o}", stream.read().decode())

    return dict(members())
