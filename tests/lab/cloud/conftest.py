"""One emulated AWS for all tests here; each test makes stacks and addresses of its own."""

from collections.abc import Iterator

import pytest

from lab.cloud.cloud import Cloud
from lab.places import Places


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = Cloud(
        python=Places().emulator_python,
        state=tmp_path_factory.mktemp("state"),
        cdk=Places().cdk,
        progress=print,
        shutdown_seconds=0.3,
    )
    cloud.start()
    yield cloud
    cloud.stop()
