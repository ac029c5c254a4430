"""What every file of settings has in common: strict tables, checks, and faults in plain words.

Such a file is TOML that a person writes and pydantic checks. This module imports neither the CDK
nor boto3, since operators' commands read settings too.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

LABEL: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
# RFC 5321 section 4.5.3.1.1: at most 64 characters before the @.
MAILBOX: Final = re.compile(r"[A-Za-z0-9._+-]{1,64}@(?P<domain>[a-z0-9.-]+)")


class Settings(BaseModel):
    """A table of such a file."""

    # Strict: `account = 111122223333` without quotes is a mistake to report, not to convert.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def invalid(message: str, *, key: str | None = None) -> PydanticCustomError:
    """A fault of the setting being validated, or of `key` below it (dotted)."""
    # Braces would be taken for placeholders of a template; the message goes in as a value instead.
    return PydanticCustomError("setting", "{message}", {"message": message, "key": key or ""})


def quoted(names: Iterable[object]) -> str:
    """The names as a list for people."""
    return ", ".join(f'"{name}"' for name in names)


def check_domain(name: str) -> str:
    """`name`, if it is a domain name; a validator of pydantic's."""
    if name != name.lower():
        raise invalid(f'"{name}" has capital letters; write "{name.lower()}"')
    labels = name.split(".")
    if len(labels) < 2 or len(name) > 253 or not all(map(LABEL.fullmatch, labels)):
        raise invalid(
            f'"{name}" is not a domain name; write labels of letters, digits and inner hyphens, '
            'joined by dots and without a final dot, such as "mail.example.com"'
        )
    return name


def check_account(account: str) -> str:
    """`account`, if it is an AWS account's 12 digits; a validator of pydantic's."""
    if not re.fullmatch(r"\d{12}", account):
        raise invalid(
            f'"{account}" is not an AWS account; write its 12 digits in quotes, such as '
            '"111122223333"'
        )
    return account


def check_region(region: str) -> str:
    """`region`, if it is a Region that can be deployed to; a validator of pydantic's."""
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", region):
        raise invalid(f'"{region}" is not an AWS Region; write one such as "us-east-1"')
    if region.startswith(("cn-", "us-gov-", "us-iso", "eu-iso")):
        raise invalid(
            f'"{region}" has other resource names, API host names or Debian images than the '
            "rest of AWS, and none was tried; write a Region outside China and GovCloud"
        )
    return region


def check_mailbox(address: str) -> str:
    """`address`, if it is a plain mail address; a validator of pydantic's."""
    match = MAILBOX.fullmatch(address)
    if match is None:
        raise invalid(
            f'"{address}" is not a plain mail address; write one such as "postmaster@example.com" '
            "(letters, digits and . _ + - before the @, lower case after it)"
        )
    check_domain(match["domain"])
    return address


def faults(
    error: ValidationError,
    model: type[Settings],
    *,
    explained: str,
    ranges: Mapping[str, str] | None = None,
    not_in_a_file: Collection[str] = (),
) -> list[tuple[str, str]]:
    """Each fault of a file as its dotted key, and what is wrong with the remedy.

    `model` is the file's top table, and `explained` says where its keys are explained. `ranges` has
    a key's whole numbers, as they follow "write a whole number". `not_in_a_file` are keys of the
    model that no file has.
    """
    return [
        (
            _key(fault),
            _message(
                fault,
                model,
                explained=explained,
                ranges=ranges or {},
                not_in_a_file=not_in_a_file,
            ),
        )
        for fault in error.errors(include_url=False)
        # Of a setting whose default is another one that is at fault, and told of.
        if fault["type"] != "default_factory_not_called"
    ]


def _key(fault: ErrorDetails) -> str:
    below = fault.get("ctx", {}).get("key")
    return ".".join(str(part) for part in (*fault["loc"], below) if part not in ("", None))


def _message(
    fault: ErrorDetails,
    model: type[Settings],
    *,
    explained: str,
    ranges: Mapping[str, str],
    not_in_a_file: Collection[str],
) -> str:
    match fault["type"]:
        case "setting":
            return str(fault["ctx"]["message"])
        case "extra_forbidden":
            return f"unknown key; {_suggestion(fault, model, not_in_a_file)}"
        case "missing":
            return f"is missing; write it, {explained}"
        case "string_type":
            return 'must be text; write it in quotes, such as "..."'
        case "too_short":
            return "is empty; write at least one"
        case "literal_error":
            choices = re.findall(r"'([^']*)'", fault["ctx"]["expected"])
            return f'"{fault["input"]}" is unknown; write one of {quoted(choices)}'
        case "greater_than" | "greater_than_equal" | "less_than_equal" | "int_type":
            return f"{fault['msg'].lower()}; write a whole number{ranges.get(_key(fault), '')}"
        case "bool_type":
            return "must be true or false, without quotes"
        case _:
            return f"{fault['msg'].lower()}; {explained}"


def _suggestion(fault: ErrorDetails, model: type[Settings], not_in_a_file: Collection[str]) -> str:
    *parents, unknown = map(str, fault["loc"])
    for parent in parents:  # but for a zone's name, or an entry's place in a list
        if parent in model.model_fields:
            model = _table_in(model.model_fields[parent].annotation) or model
    known = [key for key in model.model_fields if key not in not_in_a_file]
    close = difflib.get_close_matches(unknown, known, n=1)
    if close:
        return f'write "{close[0]}" if that is meant, or remove it'
    return f"remove it, or write one of {quoted(known)}"


def _table_in(annotation: Any) -> type[Settings] | None:
    """The table that a key holds, also where it may be left out, or holds several."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    return next(filter(None, map(_table_in, get_args(annotation))), None)
