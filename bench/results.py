"""What a bench found, as JSON: samples by workload and contender, and what is read from them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from bench.measure import Sample
from bench.queues import QueueSample
from bench.workloads import WORKLOADS, Workload

REFERENCE = "postfix-tuned"
"""The contender that the others are compared with."""
DEFAULT = "postfix"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A workload and its samples, in the order in which they were taken."""

    workload: Workload
    samples: list[Sample] = field(default_factory=list)

    def of(self, contender: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.contender == contender]

    @property
    def contenders(self) -> list[str]:
        """Who was measured, in order of first appearance."""
        return list(dict.fromkeys(sample.contender for sample in self.samples))

    def per_second(self, contender: str) -> float | None:
        """The median of delivered messages per second of those samples that are exact.

        None when there is none: a sample in which a message is missing, came twice or was unsigned
        has no rate.
        """
        return _median([s.per_second for s in self.of(contender) if s.exact])

    def seconds(self, contender: str) -> float | None:
        """The median of the time from the first connection to the last message at the sink."""
        return _median([s.seconds for s in self.of(contender) if s.exact])

    def cpu(self, contender: str, who: str) -> float | None:
        """The median of the CPU milliseconds a message of `who`, a key of `Sample.cpu`."""
        return _median([s.cpu_per_message(who) for s in self.of(contender) if s.exact])

    def ratio(self, contender: str, to: str = REFERENCE) -> float | None:
        """How many times as fast as `to`, by medians."""
        return _ratio(self.per_second(contender), self.per_second(to))

    def exact(self, contender: str) -> int:
        """How many samples had every message once, signed, and no other."""
        return sum(sample.exact for sample in self.of(contender))


@dataclass(frozen=True, kw_only=True)
class MeasuredQueue:
    """The queues of one length, and their samples."""

    messages: int
    samples: list[QueueSample] = field(default_factory=list)

    def of(self, contender: str) -> list[QueueSample]:
        return [sample for sample in self.samples if sample.contender == contender]

    @property
    def contenders(self) -> list[str]:
        """Who was measured, in order of first appearance."""
        return list(dict.fromkeys(sample.contender for sample in self.samples))

    def idle_cpu(self, contender: str) -> float | None:
        """The median of the CPU seconds that the whole host used in 30 s."""
        return _median([sum(s.idle_cpu.values()) for s in self.of(contender)])

    def drain_seconds(self, contender: str) -> float | None:
        """The median of the seconds to drain; None when a queue did not drain."""
        samples = self.of(contender)
        if any(not sample.drained for sample in samples):
            return None
        return _median([sample.drain_seconds for sample in samples])


@dataclass
class Results:
    """Everything that was measured so far."""

    about: dict[str, Any] = field(default_factory=dict)
    """The `date`, and the machine's `processors` (how many) and `processor` (its name)."""
    contenders: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Contender to its `title` and its `configuration` (setting to reason)."""
    bounds: dict[str, float] = field(default_factory=dict)
    """See `bench.bounds.measure`."""
    workloads: dict[str, Measured] = field(default_factory=dict)
    queues: dict[int, MeasuredQueue] = field(default_factory=dict)

    def add(self, workload: Workload, sample: Sample) -> None:
        self.workloads.setdefault(workload.name, Measured(workload=workload)).samples.append(sample)

    def add_queue(self, sample: QueueSample) -> None:
        self.queues.setdefault(
            sample.messages, MeasuredQueue(messages=sample.messages)
        ).samples.append(sample)

    def keep(
        self, earlier: Results, *, but_workloads: Collection[str], but_queues: Collection[int]
    ) -> None:
        """Take over what an earlier bench found, but for what is measured anew.

        Raises:
            ValueError: that was on another machine.
        """
        for one in ("processors", "processor"):
            here, there = self.about[one], earlier.about[one]
            if here != there:
                raise ValueError(f"of another machine: {one} {there}, and here {here}")
        self.contenders = earlier.contenders
        self.bounds = earlier.bounds
        self.workloads = {
            name: measured
            for name, measured in earlier.workloads.items()
            if name not in but_workloads
        }
        self.queues = {
            length: queue for length, queue in earlier.queues.items() if length not in but_queues
        }

    def write(self, file: Path) -> None:
        """Keep it as JSON, for `read`."""
        file.parent.mkdir(parents=True, exist_ok=True)
        data = {
            "about": self.about,
            "contenders": self.contenders,
            "bounds": self.bounds,
            "workloads": [
                {
                    **asdict(measured.workload),
                    "samples": [sample.to_json() for sample in measured.samples],
                }
                for measured in sorted(self.workloads.values(), key=_place)
            ],
            "queues": [
                {
                    "messages": queue.messages,
                    "samples": [sample.to_json() for sample in queue.samples],
                }
                for _, queue in sorted(self.queues.items())
            ],
        }
        file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Self:
        """What `write` kept."""
        data = json.loads(file.read_text("utf-8"))
        results = cls(about=data["about"], contenders=data["contenders"], bounds=data["bounds"])
        for entry in data["workloads"]:
            samples = _popped(entry)
            measured = Measured(workload=Workload(**entry))
            measured.samples.extend(map(Sample.from_json, samples))
            results.workloads[measured.workload.name] = measured
        for entry in data["queues"]:
            for sample in map(QueueSample.from_json, _popped(entry)):
                results.add_queue(sample)
        return results


def _place(measured: Measured) -> int:
    return list(WORKLOADS).index(measured.workload.name)


def _popped(entry: dict[str, Any]) -> list[Mapping[str, Any]]:
    samples: list[Mapping[str, Any]] = entry.pop("samples")
    return samples


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None
