"""Medians and ratios are of exact samples only, and survive the way through the file."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.report import to_the_better_postfix
from bench.results import Measured, MeasuredQueue, Results
from bench.workloads import WORKLOADS
from tests.bench.samples import queue_sample, sample

WORKLOAD = WORKLOADS["many-50ms"]


def measured(**rates: list[float]) -> Measured:
    return Measured(
        workload=WORKLOAD,
        samples=[
            sample(contender.replace("_", "-"), rate=rate)
            for contender, of_it in rates.items()
            for rate in of_it
        ],
    )


def test_the_rate_is_the_median_of_the_runs() -> None:
    found = measured(postern=[300, 100, 200, 900, 150], postfix_tuned=[100, 120, 80])
    assert found.per_second("postern") == pytest.approx(200)
    assert found.ratio("postern") == pytest.approx(2)


def test_the_better_postfix_is_the_yardstick() -> None:
    slower_when_tuned = measured(postern=[300], postfix=[200], postfix_tuned=[150])
    assert to_the_better_postfix(slower_when_tuned, "postern") == pytest.approx(1.5)
    faster_when_tuned = measured(postern=[300], postfix=[100], postfix_tuned=[150])
    assert to_the_better_postfix(faster_when_tuned, "postern") == pytest.approx(2)
    assert to_the_better_postfix(measured(postern=[300]), "postern") is None


@pytest.mark.parametrize(
    "wrong",
    [{"delivered": 999}, {"doubled": 1}, {"strangers": 1}, {"unverified": 1}, {"verified": 0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_sample_that_is_not_exact_has_no_rate(wrong: dict[str, int]) -> None:
    bad = replace(sample(rate=5000), **wrong)  # type: ignore[arg-type]
    assert not bad.exact
    found = Measured(workload=WORKLOAD, samples=[sample(rate=100), bad])
    assert found.per_second("postern") == pytest.approx(100)
    assert found.inexact("postern") == 1
    assert Measured(workload=WORKLOAD, samples=[bad]).per_second("postern") is None


def test_cpu_is_told_for_each_message() -> None:
    assert sample().cpu_per_message("signer") == pytest.approx(2.0)


def test_a_queue_that_did_not_drain_has_no_time() -> None:
    drained, not_drained = queue_sample(), queue_sample(delivered=900)
    assert MeasuredQueue(messages=1000, samples=[drained]).drain_seconds("postern") == 10
    queue = MeasuredQueue(messages=1000, samples=[drained, not_drained])
    assert queue.drain_seconds("postern") is None
    assert queue.idle_cpu("postern") == pytest.approx(0.3)


def test_the_file_gives_back_what_was_measured(tmp_path: Path) -> None:
    results = Results(about={"runs": 5}, contenders={}, bounds={"fsync": 100.0})
    results.add(WORKLOAD, sample())
    results.add(WORKLOAD, sample("postfix"))
    results.add_queue(queue_sample())
    results.write(tmp_path / "new" / "results.json")
    assert Results.read(tmp_path / "new" / "results.json") == results
