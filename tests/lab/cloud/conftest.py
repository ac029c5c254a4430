"""One emulated AWS for all tests here; each test makes stacks and addresses of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.cloud.cloud import Cloud
from lab.places import PROJECT

EMULATOR_PYTHON = Path(os.environ.get("POSTERN_EMULATOR_PYTHON", ".venv-cloud/bin/python"))


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = Cloud(
        python=PROJECT / EMULATOR_PYTHON,
        state=tmp_path_factory.mktemp("state"),
        cdk=PROJECT / "node_modules" / ".bin" / "cdk",
        progress=print,
        shutdown_seconds=0.3,
    )
    cloud.start()
    yield cloud
    cloud.stop()
