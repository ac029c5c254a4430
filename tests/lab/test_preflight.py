"""A machine that cannot run the lab is told so in one line, before anything is touched."""

import os
import platform
import shutil
from pathlib import Path

import pytest

from lab import preflight
from lab.places import Places
from lab.preflight import CannotRunHere, require_a_fit_machine


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Places:
    """A fit machine: each test spoils one thing of it."""
    for name in ("cdk", "python"):
        (tmp_path / name).touch()
    monkeypatch.setattr(
        preflight,
        "_os_release",
        lambda: {"ID": "debian", "VERSION_ID": "13", "PRETTY_NAME": "Debian 13"},
    )
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return Places(cdk=tmp_path / "cdk", emulator_python=tmp_path / "python")


def test_a_fit_machine_is_accepted(places: Places) -> None:
    require_a_fit_machine(places)


def test_another_system_is_told_what_works_there(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "_os_release", lambda: {"ID": "fedora", "PRETTY_NAME": "Fedora"})

    with pytest.raises(CannotRunHere, match=r"this is Fedora\. `make synth` and `make check` work"):
        require_a_fit_machine(places)


def test_another_processor_is_named(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")

    with pytest.raises(CannotRunHere, match="this machine is aarch64"):
        require_a_fit_machine(places)


def test_without_root_the_remedy_is_sudo(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(CannotRunHere, match="`sudo make try`, or"):
        require_a_fit_machine(places)


def test_missing_programs_are_named_by_their_packages(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name in ("nft", "ip") else name)

    with pytest.raises(CannotRunHere, match=r"apt-get install iproute2 nftables$"):
        require_a_fit_machine(places)


def test_a_missing_installation_is_answered_with_make(places: Places) -> None:
    places.cdk.unlink()

    with pytest.raises(CannotRunHere, match="run `make try`"):
        require_a_fit_machine(places)
