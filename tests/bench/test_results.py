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
    assert found.exact("postern") == 1
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
    results = Results(about={"processors": 2}, contenders={}, bounds={"fsync": 100.0})
    results.add(WORKLOAD, sample())
    results.add(WORKLOAD, sample("postfix"))
    results.add_queue(queue_sample())
    results.write(tmp_path / "new" / "results.json")
    assert Results.read(tmp_path / "new" / "results.json") == results


def earlier() -> Results:
    results = Results(
        about={"date": "2026-01-01", "processors": 2, "processor": "a CPU"},
        contenders={"exim": {}},
        bounds={"fsync": 100.0},
    )
    for name in ("many-0ms", "many-50ms"):
        results.add(WORKLOADS[name], sample())
    for messages in (1000, 5000):
        results.add_queue(queue_sample(messages=messages))
    return results


def test_a_bench_that_adds_keeps_what_it_does_not_measure_anew() -> None:
    results = Results(about={"date": "2026-02-02", "processors": 2, "processor": "a CPU"})
    results.keep(earlier(), but_workloads=["many-0ms"], but_queues=[5000])
    assert results.about["date"] == "2026-02-02"
    assert list(results.workloads) == ["many-50ms"]
    assert list(results.queues) == [1000]
    assert (results.contenders, results.bounds) == ({"exim": {}}, {"fsync": 100.0})


@pytest.mark.parametrize("other", [{"processors": 4}, {"processor": "another CPU"}])
def test_a_bench_does_not_add_to_what_another_machine_measured(other: dict[str, object]) -> None:
    results = Results(about={"processors": 2, "processor": "a CPU", **other})
    with pytest.raises(ValueError, match=f"of another machine: {next(iter(other))} "):
        results.keep(earlier(), but_workloads=[], but_queues=[])
    assert not results.workloads


def test_the_file_has_workloads_and_queues_in_the_order_of_the_account(tmp_path: Path) -> None:
    results = Results(about={"processors": 2})
    for name in ("single", "many-0ms"):
        results.add(WORKLOADS[name], sample())
    for messages in (5000, 1000):
        results.add_queue(queue_sample(messages=messages))
    results.write(tmp_path / "results.json")
    read = Results.read(tmp_path / "results.json")
    assert (list(read.workloads), list(read.queues)) == (["many-0ms", "single"], [1000, 5000])
