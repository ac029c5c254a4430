"""The documents are written from the results, and keep what people wrote around them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench import plots, report
from bench.results import Results
from bench.workloads import WORKLOADS
from tests.bench.samples import queue_sample, sample


@pytest.fixture
def results() -> Results:
    found = Results(
        about={"date": "2026-11-26", "processors": 2, "processor": "a CPU"},
        contenders={
            "postern": {"title": "Postern", "configuration": {}},
            "postfix-tuned": {"title": "Postfix", "configuration": {"in_flow_delay=0s": "why"}},
        },
        bounds={"signatures": 1100.0, "fsync": 2000.0},
    )
    for name in ("many-50ms", "single"):
        for contender, rate in (("postern", 150), ("postfix-tuned", 100)):
            found.add(WORKLOADS[name], sample(contender, rate=rate))
    found.add(WORKLOADS["many-50ms"], sample("exim", rate=50, delivered=999))
    for contender in ("postern", "postfix-tuned"):
        found.add_queue(queue_sample(contender))
    found.add_queue(queue_sample("exim", delivered=12))
    return found


def test_the_table_has_rates_and_ratios(results: Results) -> None:
    text = report.markdown(results)
    assert "| many-50ms | postern | 150 | 150 | 150 | 1.50 | 1.50 | 1 of 1 |" in text
    assert "| many-50ms | exim | - | - | - | - | - | 0 of 1 |" in text
    assert "| many-50ms | postern | 6.00 | 2.00 | 1.00 | 1.00 | 0.50 |" in text
    assert "| 1,000 | postern | 0.30 s | 10.0 s | 100 |" in text
    assert "| 1,000 | exim | 0.30 s | not: 12 of 1,000 came | - |" in text
    assert "| `in_flow_delay=0s` | why |" in text


def test_a_trial_says_that_it_is_one(results: Results) -> None:
    assert "A trial" not in report.markdown(results)
    results.add(replace(WORKLOADS["big-50ms"], messages=60), sample())
    assert "A trial, with other numbers of messages" in report.markdown(results)


def test_the_terminal_gets_the_same_tables(results: Results) -> None:
    console = Console(width=200, record=True, quiet=True)
    for table in report.tables(results):
        console.print(table)
    assert [table.row_count for table in report.tables(results)] == [1, 3, 3, 2, 3, 3]


def test_what_stands_around_the_account_is_kept(results: Results, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold figures\n{report.END}\nafter\n")
    for _ in range(2):
        report.write(results, readme)
        text = readme.read_text()
        assert text.startswith(f"before\n{report.BEGIN}\n")
        assert text.endswith(f"{report.END}\nafter\n")
        assert "old figures" not in text
        assert text.count("### Bounds") == 1


def test_a_file_without_markers_is_not_touched(results: Results, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("all mine\n")
    with pytest.raises(ValueError, match=r"README\.md must have these lines once"):
        report.write(results, readme)
    assert readme.read_text() == "all mine\n"


def test_the_published_page_has_its_markers() -> None:
    text = Path("docs/performance/README.md").read_text("utf-8")
    assert text.index(report.BEGIN) < text.index(report.END)


def test_the_plots_are_drawn(results: Results, tmp_path: Path) -> None:
    drawn = plots.write(results, tmp_path)
    shown = re.findall(r"\]\((.*)\)", report.markdown(results))
    assert shown == [file.name for file in drawn]
    assert [file.name for file in drawn] == ["throughput.png", "cpu.png", "queues.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in drawn)
