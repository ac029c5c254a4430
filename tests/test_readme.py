"""README.md and README.ko.md: one text in two languages, which names nothing that is not there."""

import re
from collections.abc import Iterator

import pytest
import typer.main
from typer.core import TyperGroup

import ops.cli
from tests.stacks.conftest import ROOT

ENGLISH = (ROOT / "README.md").read_text("utf-8")
KOREAN = (ROOT / "README.ko.md").read_text("utf-8")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

in_both = pytest.mark.parametrize("text", [ENGLISH, KOREAN], ids=["English", "Korean"])


def prose(text: str) -> str:
    return FENCED.sub("", text)


def fenced(text: str) -> list[tuple[str, str]]:
    """The language and content of each block. A diagram's labels are in the reader's language."""
    return [
        (language, "" if language == "mermaid" else content)
        for language, content in FENCED.findall(text)
    ]


def links(text: str) -> list[str]:
    """The targets, in alphabetical order: a sentence's parts have another order in Korean."""
    return sorted(re.findall(r"\]\(([^)]+)\)", prose(text)))


def tables(text: str) -> list[list[str]]:
    return [table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", prose(text), re.MULTILINE)]


def numbers(row: str) -> set[str]:
    return set(re.findall(r"\d+(?:[.,]\d+)*", row))


def spans(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def abbreviated(text: str) -> Iterator[str]:
    """Commands that a table's row has after its first: `postern queue list`, `show`, `retry`."""
    for row in (row for table in tables(text) for row in table if row.startswith("| `postern ")):
        first, *others = spans(row.split("|")[1])
        group = first.split()[1]
        for other in others:
            yield f"postern {other}" if " " in other else f"postern {group} {other}"


def code(text: str) -> list[str]:
    """What a reader is told to type; a console's comments begin after two spaces."""
    consoles = [content for language, content in fenced(text) if language == "console"]
    typed = [
        line.removeprefix("# ").split("  #")[0]
        for console in consoles
        for line in console.splitlines()
    ]
    return [*typed, *spans(prose(text)), *abbreviated(text)]


def assert_exists(command_line: str) -> None:
    command = typer.main.get_command(ops.cli.app)
    _, *words = command_line.split()
    for word in words:
        if word.startswith("-") or not isinstance(command, TyperGroup):
            break
        assert word in command.commands, command_line
        command = command.commands[word]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known, command_line


# One text


def test_each_readme_leads_to_the_other() -> None:
    assert ENGLISH.splitlines()[2] == "[한국어](README.ko.md)"
    assert KOREAN.splitlines()[2] == "[English](README.md)"


def test_the_headings_have_the_same_levels() -> None:
    levels = re.compile(r"^#+(?= )", re.MULTILINE)
    assert levels.findall(prose(KOREAN)) == levels.findall(prose(ENGLISH))


def test_the_code_blocks_are_the_same() -> None:
    assert fenced(KOREAN) == fenced(ENGLISH)


def test_the_links_lead_to_the_same_pages() -> None:
    korean = [link for link in links(KOREAN) if link != "README.md"]
    assert korean == [link for link in links(ENGLISH) if link != "README.ko.md"]


def test_the_tables_have_the_same_rows_and_numbers() -> None:
    korean, english = tables(KOREAN), tables(ENGLISH)
    assert [len(table) for table in korean] == [len(table) for table in english]
    for rows in zip(korean, english, strict=True):
        for translated, original in zip(*rows, strict=True):
            assert numbers(translated) == numbers(original), original


# Nothing that is not there


@in_both
def test_every_postern_command_exists(text: str) -> None:
    parts = [part for line in code(text) for part in line.split(" -- ")]
    commands = {part for part in parts if part.startswith("postern ")}
    assert len(commands) > 15
    for command in commands:
        assert_exists(command)


@in_both
def test_every_make_target_exists(text: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):(?!=)", makefile, re.MULTILINE))
    named = {target for line in code(text) for target in re.findall(r"^make ([a-z-]+)", line)}
    assert len(named) > 5
    assert named <= targets


@in_both
def test_every_relative_link_has_its_file(text: str) -> None:
    relative = [link.split("#")[0] for link in links(text) if "://" not in link]
    assert [link for link in relative if not (ROOT / link).exists()] == []
