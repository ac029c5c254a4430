"""acknowledged.toml: which stateful resources a change may lose, and why."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError, field_validator

from ops.deployment import CannotTell
from stacks.settings import Settings, faults, invalid, quoted

FILE: Final = Path("acknowledged.toml")
# Enough to say something.
SHORTEST_REASON: Final = 10


class Entry(Settings):
    """One loss that somebody decided on."""

    environment: str
    id: str
    change: Literal["replaced", "removed"]
    reason: str

    @field_validator("reason")
    @classmethod
    def _check_reason(cls, reason: str) -> str:
        reason = " ".join(reason.split())
        if len(reason) < SHORTEST_REASON:
            raise invalid("says too little; write why this may be lost, for whoever reviews it")
        return reason

    def __str__(self) -> str:
        return f"{self.environment}: {self.id} {self.change}"


class _File(Settings):
    acknowledged: tuple[Entry, ...] = Field(default=(), strict=False)


def parse(text: str, *, file: str) -> Sequence[Entry]:
    """The entries of such a file; `file` is what the error calls it.

    Raises:
        CannotTell: its text names the file and, for each fault, the key and the remedy.
    """
    try:
        return _File.model_validate(tomllib.loads(text)).acknowledged
    except tomllib.TOMLDecodeError as error:
        raise CannotTell(f"{file}: not TOML: {error}") from None
    except ValidationError as error:
        keys = quoted(Entry.model_fields)
        told = [
            f"{file}: {key}: {message}"
            for key, message in faults(error, _File, explained=f"an entry has {keys}")
        ]
        raise CannotTell("\n".join(told)) from None
