"""One line for each step a person waits for, with the time it took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class Steps:
    """Prints ``✓ what was done   1.2 s`` as steps end, and ``✗`` for the one that failed.

    On a terminal the running step is shown with a spinner; in a pipe or a CI log only ended steps
    and their details are lines.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            with self.console.status(title):
                yield
        except BaseException:
            self._line("[red]✗[/red]", title, began)
            raise
        self._line("[green]✓[/green]", title, began)

    def detail(self, text: str) -> None:
        """Something that happened within the running step."""
        self.console.print(f"  [dim]{text}[/dim]", highlight=False)

    @property
    def elapsed(self) -> float:
        """Seconds since the first step."""
        return time.monotonic() - self.started

    def _line(self, mark: str, title: str, began: float) -> None:
        seconds = time.monotonic() - began
        self.console.print(f"{mark} {title:<64} [dim]{seconds:6.1f} s[/dim]", highlight=False)
