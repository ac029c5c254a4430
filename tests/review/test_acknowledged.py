"""acknowledged.toml is read as strictly as an environment's file."""

import pytest

from ops.deployment import CannotTell
from review.acknowledged import FILE, parse
from tests.stacks.conftest import ROOT

ENTRY = """
[[acknowledged]]
environment = "prod"
id = "SendingIdentity/Spf455B68FA"
change = "replaced"
reason = "The sending domain gets another name."
"""


def test_an_entry_is_read() -> None:
    (entry,) = parse(ENTRY, file="acknowledged.toml")
    assert str(entry) == "prod: SendingIdentity/Spf455B68FA replaced"


def test_the_committed_file_explains_itself_by_an_entry_that_is_read() -> None:
    text = (ROOT / FILE).read_text("utf-8")
    assert parse(text, file=str(FILE)) == ()
    example = [
        line.removeprefix("#     ") for line in text.splitlines() if line.startswith("#     ")
    ]
    (entry,) = parse("\n".join(example), file=str(FILE))
    assert entry.change == "removed"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("The sending domain gets another name.", " ", "acknowledged.0.reason: says too little"),
        (
            'reason = "The sending domain gets another name."',
            "",
            "acknowledged.0.reason: is missing",
        ),
        ('"replaced"', '"changed"', '"changed" is unknown; write one of "replaced", "removed"'),
        ('environment = "prod"', "environment = 1", "acknowledged.0.environment: must be text"),
        ("id =", "name =", "acknowledged.0.name: unknown key"),
        ("[[acknowledged]]", "[[acknowledge]]", "acknowledge: unknown key"),
        ("[[acknowledged]]", "[[acknowledged", "not TOML"),
    ],
)
def test_a_fault_is_told_with_its_file_key_and_remedy(old: str, new: str, told: str) -> None:
    with pytest.raises(CannotTell, match=r"^HEAD:acknowledged\.toml: ") as error:
        parse(ENTRY.replace(old, new), file="HEAD:acknowledged.toml")
    assert told in str(error.value)
