"""What a bench is asked to do."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from bench.workloads import WORKLOADS, Workload


@dataclass(frozen=True, kw_only=True)
class Options:
    """The choice of whoever started it."""

    contenders: tuple[str, ...]
    workload_names: tuple[str, ...]
    queues: tuple[int, ...]
    """Lengths of the queues of deferred messages."""
    runs: int
    queue_runs: int
    bounds: bool
    """Whether signatures and writes to the disk are measured by themselves."""
    add: bool
    """Whether what `json` has of other workloads and queues stays."""
    scale: float
    """Share of each workload's messages that is sent."""
    json: Path
    """Where the results go."""

    @property
    def workloads(self) -> list[Workload]:
        """The chosen workloads, scaled."""
        chosen = [WORKLOADS[name] for name in self.workload_names]
        return [
            replace(
                workload,
                messages=min(workload.messages, max(20, round(workload.messages * self.scale))),
            )
            if self.scale < 1
            else replace(workload, messages=round(workload.messages * self.scale))
            for workload in chosen
        ]

    def to_json(self) -> str:
        return json.dumps({**self.__dict__, "json": str(self.json)})

    @classmethod
    def from_json(cls, text: str) -> Options:
        data = json.loads(text)
        return cls(
            **{
                **data,
                "contenders": tuple(data["contenders"]),
                "workload_names": tuple(data["workload_names"]),
                "queues": tuple(data["queues"]),
                "json": Path(data["json"]),
            }
        )
