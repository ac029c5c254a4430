"""What holds for every test of the commands."""

import functools
from collections.abc import Iterator

import botocore.loaders
import pytest
import typer.main
import typer.testing

from ops.options import console


@pytest.fixture(autouse=True)
def _width(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they print does not depend on the terminal that the tests run in."""
    monkeypatch.setattr(console, "width", 200)


@pytest.fixture(autouse=True, scope="session")
def _descriptions_are_read_once() -> Iterator[None]:
    """AWS's services for each boto3 session, the commands' options for each call: half the time."""
    shared = botocore.loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.loaders, "create_loader", lambda _paths=None: shared)
        patch.setattr(typer.testing, "_get_command", functools.cache(typer.main.get_command))
        yield
