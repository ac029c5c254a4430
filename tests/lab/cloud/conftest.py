"""One emulated AWS for most tests here; each test makes stacks and addresses of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.cloud.cloud import Cloud
from lab.places import Places


@contextmanager
def running_cloud(state: Path, *, shutdown_seconds: float = 0.3) -> Iterator[Cloud]:
    """An emulated AWS until the context ends."""
    cloud = Cloud(
        python=Places().emulator_python,
        state=state,
        cdk=Places().cdk,
        progress=print,
        shutdown_seconds=shutdown_seconds,
    )
    cloud.start()
    try:
        yield cloud
    finally:
        cloud.stop()


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with running_cloud(tmp_path_factory.mktemp("state")) as cloud:
        yield cloud
