"""The account of a run of `make faults`, on a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.table import Table

from lab.faults.growth import Growth
from lab.faults.trial import Result

_FAULT_COLUMNS = (
    *("fault", "accepted", "delivered", "returned", "duplicated", "lost", "recovered in"),
    "observed",
)
_GROWTH_COLUMNS = ("deferred messages", "CPU of an idle queue run", "drained in", "per second")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run found so far."""

    messages: int
    results: list[Result] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    """Fault name to the promise that did not hold, or to why that could not be tried."""
    growth: list[Growth] = field(default_factory=list)

    def tables(self) -> list[Table]:
        """The account for a terminal."""
        return [
            _table(columns, rows)
            for columns, rows in (
                (_FAULT_COLUMNS, self._fault_rows()),
                (_GROWTH_COLUMNS, self._growth_rows()),
            )
            if rows
        ]

    def markdown(self) -> str:
        """The account for the documentation."""
        return "\n".join(
            (
                "# Figures of the last run",
                "",
                f"Written by `make faults`; each row is a stream of {self.messages} messages.",
                "[reliability.md](reliability.md) says how to read it.",
                "",
                *_markdown(_FAULT_COLUMNS, self._fault_rows()),
                "",
                *_markdown(_GROWTH_COLUMNS, self._growth_rows()),
                "",
            )
        )

    def _fault_rows(self) -> list[tuple[str, ...]]:
        kept = [
            (
                result.fault,
                str(result.account.accepted),
                str(result.account.delivered),
                str(result.account.returned),
                str(result.account.duplicated),
                str(result.account.lost),
                f"{result.seconds_to_recover:.0f} s",
                "; ".join(result.notes),
            )
            for result in self.results
        ]
        broken = [
            (fault, *["?"] * 6, f"BROKEN: {' '.join(promise.split())}")
            for fault, promise in self.broken.items()
        ]
        return kept + broken

    def _growth_rows(self) -> list[tuple[str, ...]]:
        return [
            (
                f"{growth.messages:,}",
                f"{growth.idle_run_cpu_seconds:.2f} s",
                f"{growth.drain_seconds:.0f} s",
                f"{growth.drained_per_second:.0f}",
            )
            for growth in self.growth
        ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    return table


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
