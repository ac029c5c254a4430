"""Verdicts: what could not be told is never fine, and a fault never without a remedy."""

import io
import json

import pytest
from rich.console import Console

from ops.verdicts import EXIT_STATUS, Finding, Verdict, as_json, overall, show


def finding(verdict: Verdict) -> Finding:
    return Finding(check=f"a {verdict} one", verdict=verdict, evidence="seen [1]", remedy="mend it")


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ([Verdict.FINE, Verdict.FINE], 0),
        ([Verdict.FINE, Verdict.WRONG, Verdict.UNKNOWN], 1),
        ([Verdict.UNKNOWN, Verdict.FINE], 2),
        ([], 2),
    ],
)
def test_the_exit_status_is_that_of_the_worst_finding(verdicts: list[Verdict], status: int) -> None:
    assert EXIT_STATUS[overall(map(finding, verdicts))] == status


@pytest.mark.parametrize("verdict", [Verdict.WRONG, Verdict.UNKNOWN])
def test_what_is_not_fine_has_a_remedy(verdict: Verdict) -> None:
    with pytest.raises(ValueError, match="needs a remedy"):
        Finding(check="SPF record", verdict=verdict, evidence="there are two")


def test_the_json_document_holds_the_verdict_and_every_finding() -> None:
    document = json.loads(as_json([finding(Verdict.UNKNOWN)], environment="prod"))
    assert document == {
        "verdict": "unknown",
        "environment": "prod",
        "findings": [
            {
                "check": "a unknown one",
                "verdict": "unknown",
                "evidence": "seen [1]",
                "remedy": "mend it",
            }
        ],
    }


def test_the_table_shows_evidence_and_remedy_as_they_are() -> None:
    """Square brackets are markup to Rich, and addresses of hosts are written in them."""
    console = Console(width=100, record=True, file=io.StringIO())
    show([finding(verdict) for verdict in Verdict], console)
    text = console.export_text()
    assert "could not tell" in text
    assert text.count("seen [1]") == 3
    assert text.count("mend it") == 3
