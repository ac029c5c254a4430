"""What the commands print does not depend on the terminal that the tests run in."""

import pytest

from ops.options import console


@pytest.fixture(autouse=True)
def _width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 200)
