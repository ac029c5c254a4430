"""The lab's control socket: answers, errors in words, and who listens."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.control import ControlServer, Handler, LabError, NotRunning, ask, supervisor_pid


def refuse() -> None:
    raise ValueError("not like this")


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "control.sock"
    operations: dict[str, Handler] = {"double": lambda number: 2 * number, "refuse": refuse}
    with ControlServer(path=path, operations=operations) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield path
        server.shutdown()


def test_an_operation_gets_its_arguments_and_its_result_comes_back(socket: Path) -> None:
    assert ask(socket, "double", number=21) == 42


def test_an_operations_error_reaches_the_caller_and_the_lab_goes_on(socket: Path) -> None:
    with pytest.raises(LabError, match="ValueError: not like this"):
        ask(socket, "refuse")
    assert ask(socket, "double", number=1) == 2


def test_an_unknown_operation_is_an_error(socket: Path) -> None:
    with pytest.raises(LabError, match="halve"):
        ask(socket, "halve", number=4)


def test_only_its_owner_may_connect(socket: Path) -> None:
    assert socket.stat().st_mode & 0o777 == 0o600


def test_the_kernel_tells_who_listens(socket: Path) -> None:
    assert supervisor_pid(socket) == os.getpid()


def test_without_a_lab_the_remedy_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="postern lab up"):
        ask(tmp_path / "control.sock", "double", number=1)
