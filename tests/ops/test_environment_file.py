"""A rotation's edit is as small as a person's."""

import errno
from pathlib import Path

import pytest

from ops.deployment import CannotTell
from ops.environment_file import replace_dkim, with_dkim
from stacks.environment import Dkim, InvalidEnvironment
from tests.ops.deployed import write_environment


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '# Keys\n[dkim]\nselectors = ["a", "b"]  # two\n# This one.\nsigning = "a" # now\n',
            '# Keys\n[dkim]\nselectors = ["b", "c"]  # two\n# This one.\nsigning = "c" # now\n',
        ),
        (
            '[dkim]\r\nselectors = [\r\n  "a", # old\r\n  "b", # kept\r\n]\r\nsigning="a"\r\n',
            '[dkim]\r\nselectors = [\r\n  "b", # kept\r\n  "c",\r\n]\r\nsigning="c"\r\n',
        ),
        (
            'dkim = { selectors = ["a", "b"], signing = "a" }\n',
            'dkim = { selectors = ["b", "c"], signing = "c" }\n',
        ),
    ],
)
def test_comments_layout_and_line_ends_stay(before: str, after: str) -> None:
    assert with_dkim(before, selectors=("b", "c"), signing="c") == after


def test_a_fault_leaves_the_file_and_nothing_beside_it(tmp_path: Path) -> None:
    file = write_environment(tmp_path)
    before = file.read_bytes()
    wrong = Dkim.model_construct(selectors=("s2026a",), signing="s2026b")

    with pytest.raises(InvalidEnvironment, match=r"prod\.toml: dkim\.signing"):
        replace_dkim(file, wrong)

    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_disk_that_takes_no_more_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_environment(tmp_path)
    before = file.read_bytes()

    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ops.environment_file.os.fsync", full)
    with pytest.raises(CannotTell, match=r"prod\.toml could not be written.*No space left"):
        replace_dkim(file, Dkim(selectors=("s2026a", "s2026b"), signing="s2026b"))

    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_a_link_and_the_mode_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    file = write_environment(tmp_path / "kept")
    file.chmod(0o640)
    link = tmp_path / "prod.toml"
    link.symlink_to(file)

    diff = replace_dkim(link, Dkim(selectors=("s2026a", "s2026b"), signing="s2026b"))

    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert '+signing = "s2026b"' in diff
