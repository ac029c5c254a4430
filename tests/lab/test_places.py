"""Several labs of one machine have their own places."""

from pathlib import Path

import pytest

from lab.control import LabError
from lab.places import LAB_VARIABLE, Places, lab_name


def test_the_usual_lab_has_the_places_that_the_documents_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(LAB_VARIABLE, raising=False)

    assert Places().state == Path("/var/lib/postern-lab")
    assert Places().received.parts[-2:] == (".lab", "received")


def test_another_lab_shares_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def own() -> set[object]:
        places = Places()
        return {places.state, places.lock, places.log, places.received, lab_name()}

    monkeypatch.setenv(LAB_VARIABLE, "1")
    first = own()
    monkeypatch.setenv(LAB_VARIABLE, "2")
    assert not first & own()


@pytest.mark.parametrize("number", ["9", "-1", "two", ""])
def test_a_number_that_no_lab_has_is_refused(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setenv(LAB_VARIABLE, number)

    with pytest.raises(LabError, match="from 1 to 8"):
        Places()
