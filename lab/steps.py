"""One line for each step a person waits for, with the time it took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status


class Steps:
    """Prints ``✓ what was done   1.2 s`` as steps end, and ``✗`` for the one that failed.

    What happens within a step passes by beside a spinner on a terminal; in a pipe or a CI log each
    such detail is a line, since there it is all that shows where a long step is.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began = time.monotonic()
        self._running = Status("", console=console)
        self._title = ""

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """A step, from here to the end of the ``with`` block."""
        began = time.monotonic()
        self._title = title
        self._running.update(escape(title))
        mark = "[red]✗[/red]"
        try:
            with self._running:
                yield
            mark = "[green]✓[/green]"
        finally:
            seconds = time.monotonic() - began
            self.console.print(
                f"{mark} {escape(title):<64} [dim]{seconds:6.1f} s[/dim]", highlight=False
            )

    def detail(self, text: str) -> None:
        """Tell something that happened within the running step."""
        if self.console.is_terminal:
            self._running.update(escape(f"{self._title}: {text}"))
        else:
            self.console.print(f"  {text}", markup=False, highlight=False, soft_wrap=True)

    @property
    def elapsed(self) -> float:
        """Seconds since the first step."""
        return time.monotonic() - self._began
