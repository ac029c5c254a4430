"""What a bench found: samples by workload and contender, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.measure import Sample
from bench.workloads import Workload


@dataclass
class Results:
    """Everything that was measured so far."""

    workloads: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Workload name to its definition and its samples, in the order in which they were taken."""

    def add(self, workload: Workload, sample: Sample) -> None:
        entry = self.workloads.setdefault(
            workload.name, {**asdict(workload), "title": workload.title, "samples": []}
        )
        entry["samples"].append(sample.to_json())

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"workloads": self.workloads}, indent=1) + "\n")
