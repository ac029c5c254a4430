"""What holds for every test."""

from collections.abc import Iterator

import pytest

from stacks.environment import SUFFIX_VARIABLE


@pytest.fixture(autouse=True, scope="session")
def _no_sandbox() -> Iterator[None]:
    """Whoever runs the tests may work in one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(SUFFIX_VARIABLE, raising=False)
        yield
