"""A review as a document, which is shown in a terminal or as a pull request's comment."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table as RichTable

from review.cost import Cost, Line
from review.examine import Change, Part, Review, Unit

MARKER: Final = "<!-- postern review -->"
"""The comment's first line, by which a workflow finds the one to write anew."""
# GitHub takes 65,536 characters.
LONGEST_COMMENT: Final = 60_000
# Of a table's rows and a diff's lines: the first limits within which everything fits are taken.
LIMITS: Final = (400, 200, 100, 50, 20, 5)
LONGEST_VALUE: Final = 160
LONGEST_CELL: Final = 600
# What no Markdown is made of.
PLAIN: Final = re.compile(r"[A-Za-z0-9 .,():;'%+-]*")


@dataclass(frozen=True)
class Text:
    words: str
    strong: bool = False


@dataclass(frozen=True)
class Table:
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Code:
    language: str
    text: str


@dataclass(frozen=True)
class Section:
    """`folded`: a reader opens it."""

    title: str
    blocks: Sequence["Block"]
    folded: bool = False


Block = Text | Table | Code | Section


def document(review: Review, compared_with: str) -> list[Block]:
    """What there is to say, the most important first."""
    if not (review.units or review.host_files or review.unmatched):
        blocks: list[Block] = [Text(f"The templates are those of {compared_with}.")]
        return blocks + _spent(review)
    lost = [(unit, change) for unit in review.units for change in unit.lost]
    blocks = [Text(_headline(review, len(lost)), strong=True), Text(f"Against {compared_with}.")]
    if review.units:
        blocks.append(_summary(review.units))
    if lost:
        blocks.append(Section("Lost, and nobody said why", [*_losses(lost), *_how(lost)]))
    if review.unmatched:
        words = "acknowledged.toml has new entries for what this change does not lose:"
        remedy = Text("Correct them, or remove them.")
        table = Table(["entry"], [[entry] for entry in review.unmatched])
        blocks.append(Section("Acknowledged in vain", [Text(words), table, remedy]))
    said = [(unit, change) for unit in review.units for change in unit.acknowledged]
    if said:
        blocks.append(Section("Lost, and acknowledged", _losses(said)))
    inbound = [
        (unit.name, opening.what)
        for unit in review.units
        for opening in unit.opened
        if opening.inbound
    ]
    if inbound:
        words = "A mail host is meant to have no inbound rule. These let somebody in:"
        blocks.append(Section("INBOUND", [Text(words), Table(["environment", "rule"], inbound)]))
    blocks += _spent(review)
    blocks += [
        Section(_title(unit), list(_unit(unit, review)), folded=True) for unit in review.units
    ]
    if review.host_files:
        title = "What every host unpacks (host-files.txt)"
        blocks.append(Section(title, [Code("diff", review.host_files)], folded=True))
    return blocks


def _headline(review: Review, lost: int) -> str:
    if lost:
        return f"✗ {lost} stateful {_plural('resource', lost)} would be lost"
    if review.unmatched:
        return "✗ acknowledged.toml names what is not lost"
    return "✓ Nothing stateful is lost that is not acknowledged"


def _spent(review: Review) -> list[Block]:
    if not review.spent:
        return []
    words = "acknowledged.toml has entries of earlier changes, which count no more; remove them:"
    return [Section("Spent", [Text(words), Table(["entry"], [[entry] for entry in review.spent])])]


def _summary(units: Iterable[Unit]) -> Table:
    columns = [
        "",
        "added",
        "changed",
        "replaced",
        "removed",
        "permissions",
        "network",
        "USD a month",
    ]
    rows = []
    for unit in units:
        opened = len(unit.opened)
        counts = [unit.count(action) for action in ("added", "changed", "replaced", "removed")]
        row = [
            unit.name if unit.status == "changed" else f"{unit.name} ({unit.status})",
            *(str(count or "") for count in counts),
            "widened" if unit.widened else "not widened" if unit.permissions else "",
            f"{opened} {_plural('opening', opened)}" if opened else "",
            _signed(unit.dearer) if unit.dearer else "",
        ]
        rows.append(row)
    return Table(columns, rows)


def _losses(changes: Iterable[tuple[Unit, Change]]) -> list[Block]:
    rows = [
        [unit.name, change.id, change.type, _what(change), change.reason or _cause(change)]
        for unit, change in changes
    ]
    return [Table(["environment", "id", "type", "change", "why"], rows)]


def _how(changes: Iterable[tuple[Unit, Change]]) -> list[Block]:
    entries = "\n".join(
        "[[acknowledged]]\n"
        f"environment = {json.dumps(unit.name)}\n"
        f"id = {json.dumps(change.id)}\n"
        f"change = {json.dumps(change.action)}\n"
        'reason = ""\n'
        for unit, change in changes
    )
    words = "If that is meant, acknowledge each in acknowledged.toml with its reason; else undo it:"
    return [Text(words), Section("Entries to fill in", [Code("toml", entries)], folded=True)]


def _title(unit: Unit) -> str:
    counts = [
        f"{count} {action}"
        for action in ("added", "changed", "replaced", "removed")
        if (count := unit.count(action))
    ]
    return f"{unit.name}: {', '.join(counts) or 'no resource changes'}"


def _unit(unit: Unit, review: Review) -> Iterator[Block]:
    if unit.hosts:
        words = "Hosts that end and are started anew, one after the other: "
        yield Text(words + ", ".join(unit.hosts) + ".", strong=True)
    if unit.changes:
        rows = [[change.id, change.type, _what(change), _parts(change)] for change in unit.changes]
        yield Table(["resource", "type", "change", "values"], rows)
    if unit.values:
        rows = [[value.what, *_cut_alike(value.before, value.after)] for value in unit.values]
        table = Table(["", "before", "after"], rows)
        yield Section("Outputs, parameters and the rest", [table])
    if unit.permissions:
        rows = [
            [
                "+" if permission.added else "-",
                permission.effect,
                permission.principal,
                permission.action,
                permission.resource,
                permission.condition,
            ]
            for permission in unit.permissions
        ]
        title = "Permissions: widened" if unit.widened else "Permissions: not widened"
        columns = ["", "effect", "who", "action", "resource", "condition"]
        yield Section(title, [Table(columns, rows)])
    if unit.openings:
        rows = [["+" if opening.added else "-", opening.what] for opening in unit.openings]
        yield Section("Network", [Table(["", "way"], rows)])
    if unit.user_data:
        yield Section("User data", [Code("diff", unit.user_data)])
    yield from _cost(unit, review.region)


def _what(change: Change) -> str:
    return f"{change.action} ({change.note})" if change.note else change.action


def _cause(change: Change) -> str:
    """The values that replace it; a resource that is removed has none."""
    causes = [part for part in change.parts if "REPLACE" in part.impact] or change.parts
    if change.action == "removed":
        return "no longer in the template (under this logical id)"
    return "\n".join(map(_part, causes))


def _parts(change: Change) -> str:
    return "\n".join(map(_part, change.parts))


def _part(part: Part) -> str:
    before, after = _cut_alike(part.before, part.after)
    mark = {"WILL_REPLACE": " (replaces)", "MAY_REPLACE": " (may replace)"}.get(part.impact, "")
    return f"{part.path}: {before} becomes {after}{mark}"


def _cut_alike(before: str, after: str) -> tuple[str, str]:
    """Both so short that what differs can be seen: a long beginning that they share goes."""
    pairs = enumerate(zip(before, after, strict=False))
    shared = next((at for at, (old, new) in pairs if old != new), min(len(before), len(after)))
    start = max(0, shared - 40) if max(len(before), len(after)) > LONGEST_VALUE else 0

    def cut(text: str) -> str:
        end = start + LONGEST_VALUE
        return ("…" if start else "") + text[start:end] + ("…" if len(text) > end else "")

    return cut(before), cut(after)


def _cost(unit: Unit, region: str) -> Iterator[Block]:
    before, after = (
        {(line.what, line.unit): line for line in cost.lines} for cost in (unit.before, unit.after)
    )
    rows = []
    for key in sorted({*before, *after}, key=str):
        old, new = before.get(key), after.get(key)
        if old != new:
            rows.append([key[0], _priced(old), _priced(new)])
    unknown = sorted({*unit.before.unknown, *unit.after.unknown})
    if not rows and not unknown:
        return
    rows.append(["together", _usd(unit.before.total), _usd(unit.after.total)])
    blocks: list[Block] = [Table(["", "before", "after"], rows)]
    if unknown:
        blocks.append(Text(f"Price unknown, and not in these sums: {', '.join(unknown)}."))
    by_use = sorted({*unit.before.by_use, *unit.after.by_use})
    if by_use:
        blocks.append(Text(f"By use, and not in these sums: {', '.join(by_use)}."))
    yield Section(f"USD a month, list prices of {region}", blocks)


def _priced(line: Line | None) -> str:
    if line is None:
        return ""
    if line.unit is None:
        return f"{line.number} at ?"
    return f"{line.number} at {_usd(line.unit)} = {_usd(line.number * line.unit)}"


def _usd(amount: Decimal) -> str:
    return f"{amount:.2f}"


def _signed(amount: Decimal) -> str:
    return f"{amount:+.2f}"


def _plural(word: str, number: int) -> str:
    return word if number == 1 else f"{word}s"


# As JSON


def as_json(review: Review, compared_with: str) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, Decimal):
            return float(round(value, 2))
        raise TypeError(type(value))

    def costs(cost: Cost) -> dict[str, Any]:
        return {"total": cost.total, **asdict(cost)}

    units = [
        {**asdict(unit), "before": costs(unit.before), "after": costs(unit.after)}
        for unit in review.units
    ]
    told = {"verdict": review.verdict, "base": compared_with, **asdict(review), "units": units}
    return json.dumps(told, indent=2, default=plain)


# As a comment


def as_markdown(blocks: Sequence[Block]) -> str:
    """GitHub's Markdown, at most LONGEST_COMMENT characters: what is cut says so."""
    for limit in LIMITS:
        text = "\n\n".join([MARKER, *_markdown(blocks, limit, depth=3)]) + "\n"
        if len(text) <= LONGEST_COMMENT:
            return text
    note = "\n\n(Cut: `make review` shows the rest.)\n"
    # Open sections would hide the note.
    return text[: LONGEST_COMMENT - 500].rpartition("<details>")[0] + note


def _markdown(blocks: Iterable[Block], limit: int, depth: int) -> Iterator[str]:
    for block in blocks:
        match block:
            case Text(words, strong):
                yield f"**{words}**" if strong else words
            case Table(columns, rows):
                header = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
                body = [f"| {' | '.join(map(_cell, row))} |" for row in rows[:limit]]
                yield "\n".join([*header, *body])
                yield from _cut(len(rows) - limit, "rows")
            case Code(language, text):
                lines = text.splitlines()
                # A fence longer than any that is quoted.
                yield "\n".join([f"``````{language}", *lines[:limit], "``````"])
                yield from _cut(len(lines) - limit, "lines")
            case Section(title, inner, True):
                yield f"<details><summary>{title}</summary>"
                yield from _markdown(inner, limit, depth)
                yield "</details>"
            case Section(title, inner, _):
                yield f"{'#' * depth} {title}"
                yield from _markdown(inner, limit, depth + 1)


def _cut(number: int, what: str) -> Iterator[str]:
    if number > 0:
        yield f"({number} more {what}: `make review` shows them.)"


def _cell(text: str) -> str:
    """Each line as code, so that no value is taken for Markdown, HTML or a person's name."""
    return "<br>".join(_code(line) for line in text.splitlines())


def _code(text: str) -> str:
    if PLAIN.fullmatch(text):
        return text
    short = text if len(text) <= LONGEST_CELL else text[:LONGEST_CELL] + "…"
    return "`" + short.replace("`", "'").replace("|", "\\|") + "`"


# In a terminal


def show(blocks: Sequence[Block], console: Console) -> None:
    for block in blocks:
        match block:
            case Text(words, strong):
                console.print(escape(words), style="bold" if strong else "")
            case Table(columns, rows):
                lines = any("\n" in "".join(row) for row in rows)
                # Without its edges the summary fits into 80 columns.
                table = RichTable(show_lines=lines, padding=(0, 1, 0, 0), show_edge=False)
                for column in columns:
                    longest_word = max(map(len, column.split()), default=0)
                    table.add_column(column, overflow="fold", min_width=longest_word)
                for row in rows:
                    table.add_row(*map(escape, row))
                console.print(table)
            case Code(language, text):
                console.print(Syntax(text, language, theme="ansi_dark", background_color="default"))
            case Section(title, inner, _):
                console.print(f"\n[bold underline]{escape(title)}[/]")
                show(inner, console)
