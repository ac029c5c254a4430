"""An edit of an environment's file: comments and layout stay, and a fault leaves it untouched."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import tomlkit

from ops.deployment import CannotTell
from stacks.environment import Dkim, InvalidEnvironment, load


def with_dkim(text: str, *, selectors: Collection[str], signing: str) -> str:
    """The file's text with these selectors, the new ones last, and this one signing."""
    document = tomlkit.parse(text)
    dkim: Any = document["dkim"]  # a table of its own, or an inline one
    listed = dkim["selectors"]
    for selector in [str(item) for item in listed]:
        if selector not in selectors:
            listed.remove(selector)
    for selector in selectors:
        if selector not in listed:
            listed.append(selector)
    if dkim["signing"] != signing:
        dkim["signing"] = signing
    return tomlkit.dumps(document)


def replace_dkim(path: Path, dkim: Dkim) -> str:
    """Write these DKIM settings into the file; returns the change as a unified diff.

    The new text is read as any environment's file is before it takes the old one's place, in one
    step: whoever reads the file meanwhile finds either.

    Raises:
        InvalidEnvironment: the file would have a fault; it is as it was.
        CannotTell: this user may not write there; it is as it was.
    """
    file = path.resolve()
    before = _read(file)
    after = with_dkim(before, selectors=dkim.selectors, signing=dkim.signing)
    # Of the same name, which is the environment's, but none of the environments/*.toml.
    candidate = file.with_suffix(".new")
    try:
        with candidate.open("w", encoding="utf-8", newline="") as written:
            written.write(after)
            written.flush()
            os.fsync(written.fileno())
        shutil.copymode(file, candidate)
        expected = load(file).model_copy(update={"dkim": dkim, "file": candidate})
        if load(candidate) != expected:
            raise AssertionError(f"{file} was not changed: the edit changes more than [dkim]")
        candidate.replace(file)
    except InvalidEnvironment as error:
        raise InvalidEnvironment(str(error).replace(str(candidate), str(path))) from None
    except OSError as error:
        raise CannotTell(f"{path} could not be written and is as it was: {error}") from error
    finally:
        candidate.unlink(missing_ok=True)
    return "".join(
        difflib.unified_diff(
            before.splitlines(keepends=True),
            after.splitlines(keepends=True),
            fromfile=f"{path} (before)",
            tofile=str(path),
        )
    )


def _read(file: Path) -> str:
    with file.open(encoding="utf-8", newline="") as text:  # with the line ends that it has
        return text.read()
