"""What a command found: each thing fine, wrong, or not to be told; never a guess."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Verdict(StrEnum):
    """A finding's verdict, in the order of what an operator has to look at first."""

    WRONG = "wrong"
    UNKNOWN = "unknown"
    FINE = "fine"


EXIT_STATUS = {Verdict.FINE: 0, Verdict.WRONG: 1, Verdict.UNKNOWN: 2}
"""What a command ends with: 1 when something is wrong, else 2 when something could not be told."""

_MARKS = {
    Verdict.FINE: "[green]✓ fine[/green]",
    Verdict.WRONG: "[red]✗ wrong[/red]",
    Verdict.UNKNOWN: "[yellow]? could not tell[/yellow]",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """What was looked at, the same words at every run: "SPF record"."""
    verdict: Verdict
    evidence: str
    """What was seen, with the values."""
    remedy: str = ""
    """What to do; empty only when there is nothing to do."""

    def __post_init__(self) -> None:
        """Refuse a fault that nobody is told how to mend."""
        if self.verdict is not Verdict.FINE and not self.remedy:
            raise ValueError(f"{self.check}: a finding that is not fine needs a remedy")


def overall(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict; of nothing at all, nothing can be told."""
    verdicts = {finding.verdict for finding in findings}
    for verdict in Verdict:
        if verdict in verdicts:
            return verdict
    return Verdict.UNKNOWN


def as_json(findings: Sequence[Finding], **more: Any) -> str:
    """A JSON document: `verdict`, `findings` as a list of their fields, and what is given."""
    document = {"verdict": overall(findings), **more, "findings": [asdict(f) for f in findings]}
    return json.dumps(document, indent=2)


def show(findings: Iterable[Finding], console: Console) -> None:
    """A table of the findings, with each remedy below its evidence."""
    table = Table("", "what", "seen, and what to do", show_lines=True)
    for finding in findings:
        seen = escape(finding.evidence)
        if finding.remedy:
            seen += f"\n[bold]→[/bold] {escape(finding.remedy)}"
        table.add_row(_MARKS[finding.verdict], escape(finding.check), seen)
    console.print(table)
