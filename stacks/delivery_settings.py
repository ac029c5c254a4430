"""How changes reach the environments: the settings of delivery.toml.

Every fault is reported with the file, the key and the remedy, all faults at once. This module does
not import the CDK.
"""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from stacks.environment import InvalidEnvironment, check_account, check_mailbox, check_region

FILE: Final = Path("delivery.toml")

# GitHub's rules: https://docs.github.com/en/rest/repos (owner: letters, digits, inner hyphens).
REPOSITORY: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,39}(?<!-)/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
# Of what git-check-ref-format(1) allows, what needs quoting nowhere.
BRANCH: Final = re.compile(r"(?![/.-])(?!.*(?://|\.\.|/\.))[A-Za-z0-9._/-]{1,200}(?<![/.])")
# Older connections keep the service's old name.
CONNECTION: Final = re.compile(
    r"arn:aws:(?:codeconnections|codestar-connections):[a-z0-9-]+:(?P<account>\d{12}):connection/"
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
)


class InvalidDelivery(InvalidEnvironment):
    """delivery.toml cannot be used; the text is the whole message for whoever edits it."""


def _invalid(message: str) -> PydanticCustomError:
    return PydanticCustomError("setting", "{message}", {"message": message})


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PipelineSettings(_Settings):
    """CodePipeline: where it runs, how it reaches the repository, whom it tells."""

    account: str
    region: str
    connection_arn: str
    notify: str

    _check_account = field_validator("account")(check_account)
    _check_region = field_validator("region")(check_region)
    _check_notify = field_validator("notify")(check_mailbox)

    @field_validator("connection_arn")
    @classmethod
    def _check_connection(cls, arn: str, info: ValidationInfo) -> str:
        match = CONNECTION.fullmatch(arn)
        if match is None:
            raise _invalid(
                f'"{arn}" is not a connection; write its ARN as `aws codeconnections '
                "list-connections` shows it"
            )
        account = info.data.get("account")
        if account is not None and match["account"] != account:
            raise _invalid(
                f"the connection is in account {match['account']} and the pipeline in {account}; "
                "make a connection in the pipeline's account"
            )
        return arn


class GitHubIds(_Settings):
    """What GitHub's tokens call the repository besides its name; they outlive a renaming."""

    owner: PositiveInt
    repository: PositiveInt


class GitHubSettings(_Settings):
    """GitHub Actions: who makes GitHub's OpenID Connect provider in the environments' accounts.

    ids: of a repository whose tokens have them, as those made or renamed since July 2026 do.
    """

    provider: Literal["create", "exists"]
    ids: GitHubIds | None = None


class DeliverySettings(_Settings):
    """The repository, its deployed branch, and what deploys it."""

    repository: str
    branch: str
    pipeline: PipelineSettings | None = None
    github: GitHubSettings | None = None

    @field_validator("repository")
    @classmethod
    def _check_repository(cls, repository: str) -> str:
        if not REPOSITORY.fullmatch(repository):
            raise _invalid(
                f'"{repository}" is not a repository; write owner/name, such as "example/postern"'
            )
        return repository

    @field_validator("branch")
    @classmethod
    def _check_branch(cls, branch: str) -> str:
        if not BRANCH.fullmatch(branch):
            raise _invalid(f'"{branch}" is not a branch; write its short name, such as "main"')
        return branch


def load(path: Path = FILE) -> DeliverySettings:
    """Read and check delivery.toml.

    Raises:
        InvalidDelivery: its text names the file and, for each fault, the key and the remedy.
    """
    try:
        return DeliverySettings.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidDelivery(f"{path}: cannot be read: {error}") from None
    except ValidationError as error:
        faults = [f"{path}: {_describe(fault)}" for fault in error.errors(include_url=False)]
        raise InvalidDelivery("\n".join(faults)) from None


def _describe(fault: ErrorDetails) -> str:
    match fault["type"]:
        case "setting":
            message = fault["ctx"]["message"]
        case "extra_forbidden":
            message = f"unknown key; {_suggestion(fault)}"
        case "missing":
            message = "is missing; write it, the delivery.toml of the repository explains every key"
        case "string_type":
            message = 'must be text; write it in quotes, such as "..."'
        case "int_type" | "greater_than":
            message = "must be a whole number above 0; write it without quotes, such as 123456"
        case "literal_error":
            message = f'"{fault["input"]}" is unknown; write "create" or "exists"'
        case _:
            message = fault["msg"].lower()
    return f"{'.'.join(map(str, fault['loc']))}: {message}"


def _suggestion(fault: ErrorDetails) -> str:
    *parents, unknown = map(str, fault["loc"])
    tables: dict[str, type[_Settings]] = {
        "": DeliverySettings,
        "pipeline": PipelineSettings,
        "github": GitHubSettings,
        "github.ids": GitHubIds,
    }
    table = tables[".".join(parents)]
    close = difflib.get_close_matches(unknown, table.model_fields, n=1)
    if close:
        return f'write "{close[0]}" if that is meant, or remove it'
    return "remove it, or write one of " + ", ".join(f'"{key}"' for key in table.model_fields)
