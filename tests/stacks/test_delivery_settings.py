"""A wrong delivery.toml stops with one message that names the key and the remedy."""

from pathlib import Path

import pytest

from stacks.delivery_settings import InvalidDelivery, load
from tests.stacks.conftest import ROOT

ARN = (
    "arn:aws:codeconnections:us-east-1:777788889999:connection/01234567-89ab-cdef-0123-456789abcdef"
)

# What is written instead of what; the key that the message names; the remedy that it gives.
FAULTS = {
    "unknown key": (('branch = "main"', 'branch = "main"\nbranches = 2'), "branches", '"branch"'),
    "unknown key of a table": (
        ('provider = "create"', 'provider = "create"\nrole = "x"'),
        "github.role",
        'remove it, or write one of "provider"',
    ),
    "missing key": (('branch = "main"', ""), "branch", "is missing; write it"),
    "not text": (('branch = "main"', "branch = 1"), "branch", "write it in quotes"),
    "repository by its URL": (
        ('"example/postern"', '"https://github.com/example/postern"'),
        "repository",
        "write owner/name",
    ),
    "owner that begins with a hyphen": (
        ('"example/postern"', '"-x/postern"'),
        "repository",
        "write owner/name",
    ),
    "branch with a command in it": (
        ('"main"', '"main; true"'),
        "branch",
        "write its short name",
    ),
    "branch that leaves its folder": (('"main"', '"a/../b"'), "branch", "write its short name"),
    "account too short": (
        ('account = "777788889999"', 'account = "77778888999"'),
        "pipeline.account",
        "12 digits",
    ),
    "not a Region": (
        ('region = "us-east-1"', 'region = "virginia"'),
        "pipeline.region",
        '"us-east-1"',
    ),
    "not a connection": (
        (ARN, ARN.replace("connection/", "host/")),
        "pipeline.connection_arn",
        "list-connections",
    ),
    "connection of another account": (
        (ARN, ARN.replace("777788889999", "111122223333")),
        "pipeline.connection_arn",
        "make a connection in the pipeline's account",
    ),
    "not a mailbox": (
        ('"operations@example.com"', '"operations"'),
        "pipeline.notify",
        "is not a plain mail address",
    ),
    "unknown provider": (
        ('"create"', '"new"'),
        "github.provider",
        'write one of "create", "exists"',
    ),
}


def write(folder: Path, *replacements: tuple[str, str]) -> Path:
    """delivery.toml with passages replaced: pairs of (what stands there, what shall)."""
    text = (ROOT / "delivery.toml").read_text(encoding="utf-8")
    for old, new in replacements:
        text = text.replace(old, new)
    path = folder / "delivery.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_reported_with_key_and_remedy(tmp_path: Path, fault: str) -> None:
    replacement, key, remedy = FAULTS[fault]
    path = write(tmp_path, replacement)
    assert path.read_text() != (ROOT / "delivery.toml").read_text()
    with pytest.raises(InvalidDelivery) as error:
        load(path)
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{path}: {key}: ")
    assert remedy in line


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, ('"main"', '"-"'), ('"create"', '"new"'))
    with pytest.raises(InvalidDelivery) as error:
        load(path)
    assert len(str(error.value).splitlines()) == 2


def test_what_cannot_be_read_is_told_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "delivery.toml"
    path.write_text("repository = ")
    with pytest.raises(InvalidDelivery, match=r"delivery\.toml: cannot be read: "):
        load(path)


def test_either_table_may_be_left_out(tmp_path: Path) -> None:
    text = (ROOT / "delivery.toml").read_text(encoding="utf-8")
    path = tmp_path / "delivery.toml"
    path.write_text(text.partition("[pipeline]")[0])
    settings = load(path)
    assert (settings.pipeline, settings.github) == (None, None)
    assert settings.repository == "example/postern"
    assert load(ROOT / "delivery.toml").pipeline is not None


def test_a_connection_under_the_services_old_name_is_one(tmp_path: Path) -> None:
    old = ARN.replace("codeconnections", "codestar-connections")
    pipeline = load(write(tmp_path, (ARN, old))).pipeline
    assert pipeline is not None
    assert pipeline.connection_arn == old
