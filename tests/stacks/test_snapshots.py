"""What the app makes is what was reviewed: the files in tests/snapshots, which review/ explains."""

import shutil
from pathlib import Path

import aws_cdk as cdk
import pytest

from review.snapshots import (
    CELL_SETTINGS,
    FOLDER,
    HOST_FILES,
    Files,
    NotSynthesised,
    read,
    synthesised,
    user_data_of,
    write,
)
from stacks.custom_resource_function import CODE
from tests.stacks.conftest import ENVIRONMENTS, ROOT, Templates, resources


@pytest.fixture(scope="module")
def made() -> Files:
    """What `make snapshots` would write."""
    return synthesised(ROOT)


def test_what_the_app_makes_is_what_was_reviewed(made: Files) -> None:
    kept = read(ROOT / FOLDER)
    told = "`make snapshots` writes it anew; `make review` says what the change means"
    assert sorted(made) == sorted(kept), told
    for name, text in made.items():
        assert text == kept[name], f"{name}: {told}"


def test_every_environment_is_reviewed(made: Files) -> None:
    assert {name.split("/")[0] for name in made if "/" in name} == set(ENVIRONMENTS)


def test_what_all_hosts_unpack_is_shown_once(made: Files) -> None:
    """And nothing of it again with an environment, since none of these has files of its own."""
    assert "---- /etc/mail/sendmail.mc (0644) ----\n" in made[HOST_FILES]
    assert "@SENDING_DOMAIN@" in made[HOST_FILES]
    assert not any("----" in text for name, text in made.items() if name.endswith("user-data.txt"))


def test_the_hosts_differ_in_their_queue_volume_and_signal_only(example: Templates) -> None:
    """So one of them is enough to review."""
    first, second = resources(example["MailHosts"], "AWS::EC2::LaunchTemplate").values()
    lines = zip(user_data_of(first).splitlines(), user_data_of(second).splitlines(), strict=True)
    changed = {one.split("=")[0].strip() for one, other in lines if one != other}
    assert changed == set(CELL_SETTINGS)


def test_the_hash_of_a_functions_code_is_its_sources(tmp_path: Path) -> None:
    """So a snapshot may show it: it is the same on every machine, whatever Python left there."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(CODE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    exclude = ["**/__pycache__", "**/*.pyc"]
    here = cdk.FileSystem.fingerprint(str(CODE), exclude=exclude)
    assert cdk.FileSystem.fingerprint(str(copy), exclude=exclude) == here
    cache = copy / "handlers" / "__pycache__"
    cache.mkdir()
    (cache / "dkim_key.cpython-311.pyc").write_bytes(b"compiled")
    assert cdk.FileSystem.fingerprint(str(copy), exclude=exclude) == here
    (copy / "handlers" / "dkim_key.py").write_text("changed", encoding="utf-8")
    assert cdk.FileSystem.fingerprint(str(copy), exclude=exclude) != here


def test_an_app_that_fails_says_why(tmp_path: Path) -> None:
    shutil.copy(ROOT / "cdk.json", tmp_path)
    (tmp_path / "app.py").write_text("raise SystemExit('no such zone')", encoding="utf-8")
    with pytest.raises(NotSynthesised, match="no such zone"):
        synthesised(tmp_path)


def test_writing_removes_what_is_not_there_any_more(tmp_path: Path) -> None:
    write({"old/Network.json": "{}", "host-files.txt": "a"}, tmp_path)
    new = {"new/Network.json": "{}", "host-files.txt": "b"}
    write(new, tmp_path)
    assert read(tmp_path) == new
    assert not (tmp_path / "old").exists()
