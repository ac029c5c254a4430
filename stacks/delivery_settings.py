"""How changes reach the environments: the settings of delivery.toml.

Every fault is reported with the file, the key and the remedy, all faults at once. This module does
not import the CDK.
"""

import re
import tomllib
from pathlib import Path
from typing import Final, Literal

from pydantic import PositiveInt, ValidationError, ValidationInfo, field_validator

from stacks.environment import InvalidEnvironment
from stacks.settings import Settings, check_account, check_mailbox, check_region, faults, invalid

FILE: Final = Path("delivery.toml")
EXPLAINED: Final = "the delivery.toml of the repository explains every key"
RANGES: Final = dict.fromkeys(
    ("github.ids.owner", "github.ids.repository"), " above 0, without quotes, such as 123456"
)

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


class PipelineSettings(Settings):
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
            raise invalid(
                f'"{arn}" is not a connection; write its ARN as `aws codeconnections '
                "list-connections` shows it"
            )
        account = info.data.get("account")
        if account is not None and match["account"] != account:
            raise invalid(
                f"the connection is in account {match['account']} and the pipeline in {account}; "
                "make a connection in the pipeline's account"
            )
        return arn


class GitHubIds(Settings):
    """What GitHub's tokens call the repository besides its name; they outlive a renaming."""

    owner: PositiveInt
    repository: PositiveInt


class GitHubSettings(Settings):
    """GitHub Actions: who makes GitHub's OpenID Connect provider in the environments' accounts.

    ids: of a repository whose tokens have them, as those made or renamed since July 2026 do.
    """

    provider: Literal["create", "exists"]
    ids: GitHubIds | None = None


class DeliverySettings(Settings):
    """The repository, its deployed branch, and what deploys it."""

    repository: str
    branch: str
    pipeline: PipelineSettings | None = None
    github: GitHubSettings | None = None

    @field_validator("repository")
    @classmethod
    def _check_repository(cls, repository: str) -> str:
        if not REPOSITORY.fullmatch(repository):
            raise invalid(
                f'"{repository}" is not a repository; write owner/name, such as "example/postern"'
            )
        return repository

    @field_validator("branch")
    @classmethod
    def _check_branch(cls, branch: str) -> str:
        if not BRANCH.fullmatch(branch):
            raise invalid(f'"{branch}" is not a branch; write its short name, such as "main"')
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
        told = [
            f"{path}: {key}: {message}"
            for key, message in faults(error, DeliverySettings, explained=EXPLAINED, ranges=RANGES)
        ]
        raise InvalidDelivery("\n".join(told)) from None
