"""A review is readable as a comment whatever it holds."""

import pytest

from review.report import (
    LIMITS,
    LONGEST_COMMENT,
    MARKER,
    Block,
    Code,
    Section,
    Table,
    Text,
    as_markdown,
)


def test_a_comment_is_cut_where_it_would_be_too_long_for_github() -> None:
    """And says so, with everything that comes before the long parts as it is."""
    diff = "\n".join(f"+{number:04} " + "x" * 80 for number in range(3000))
    rows = [[f"Network/Resource{number}", "y" * 400] for number in range(500)]
    blocks: list[Block] = [
        Text("the verdict", strong=True),
        Section("prod", [Table(["resource", "values"], rows), Code("diff", diff)], folded=True),
    ]
    text = as_markdown(blocks)
    assert text.startswith(f"{MARKER}\n\n**the verdict**\n")
    assert len(text) <= LONGEST_COMMENT
    assert "more lines: `make review` shows them.)" in text
    assert "more rows: `make review` shows them.)" in text
    assert text.count("<details>") == text.count("</details>") == 1


def test_a_comment_with_too_many_parts_is_cut_too() -> None:
    part = Section("prod", [Code("diff", "\n".join(["+" + "x" * 500] * LIMITS[-1]))], folded=True)
    text = as_markdown([Text("the verdict"), *[part] * 100])
    assert len(text) <= LONGEST_COMMENT
    assert text.endswith("(Cut: `make review` shows the rest.)\n")
    assert text.count("<details>") == text.count("</details>")


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("removed (kept)", "removed (kept)"),
        ("<b>bold</b>", "`<b>bold</b>`"),
        ("@somebody", "`@somebody`"),
        ("a | b", "`a \\| b`"),
        ("a ` b", "`a ' b`"),
        ("one\n*two*", "one<br>`*two*`"),
    ],
)
def test_a_value_is_never_taken_for_markdown(value: str, cell: str) -> None:
    assert f"| {cell} |" in as_markdown([Table(["value"], [[value]])])
