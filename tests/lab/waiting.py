"""How long a test waits for what is to happen: until it has, however slow this machine is."""

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

# No promise of anything's speed: only a test that fails takes so long.
PATIENCE_SECONDS = 120.0


def eventually(
    condition: Callable[[], _T],
    *,
    seconds: float = PATIENCE_SECONDS,
    explain: Callable[[], object] = str,
) -> _T:
    """The first true value of `condition`, asked ten times a second.

    Raises:
        AssertionError: there was none within `seconds`; the text has what `explain` returns.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {explain()}"
        time.sleep(0.1)
    return value
