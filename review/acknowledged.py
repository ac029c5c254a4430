"""acknowledged.toml: which stateful resources a change may lose, and why."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from ops.deployment import CannotTell

FILE: Final = Path("acknowledged.toml")
# Enough to say something.
SHORTEST_REASON: Final = 10


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Entry(_Settings):
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
            raise PydanticCustomError(
                "setting", "says too little; write why this may be lost, for whoever reviews it"
            )
        return reason

    def __str__(self) -> str:
        return f"{self.environment}: {self.id} {self.change}"


class _File(_Settings):
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
        faults = [f"{file}: {_describe(fault)}" for fault in error.errors(include_url=False)]
        raise CannotTell("\n".join(faults)) from None


def _describe(fault: ErrorDetails) -> str:
    keys = ", ".join(f'"{key}"' for key in Entry.model_fields)
    match fault["type"]:
        case "missing":
            message = f"is missing; an entry has {keys}"
        case "extra_forbidden":
            message = f"unknown key; remove it, an entry has {keys}"
        case "literal_error":
            message = f'"{fault["input"]}" is unknown; write "replaced" or "removed"'
        case "string_type":
            message = 'must be text; write it in quotes, such as "..."'
        case _:
            message = fault["msg"].lower()
    return f"{'.'.join(map(str, fault['loc']))}: {message}"
