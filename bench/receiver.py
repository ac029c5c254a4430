"""The sink as the bench sees it: started, told what to do, asked what came."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.names import SINK_ADDRESSES
from lab.network import INTERNET
from lab.network.namespace import command_in


class Receiver:
    """The program `bench.sink` on the Internet of the lab."""

    def __init__(self) -> None:
        self._program = subprocess.Popen(
            command_in(INTERNET, [sys.executable, "-m", "bench.sink", *map(str, SINK_ADDRESSES)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(
        self,
        *,
        run: str,
        expected: int,
        delay: float = 0,
        hold: float = 0,
        sample: Path | None = None,
        sample_every: int = 0,
    ) -> None:
        """Count anew; the fields are those of `bench.sink.Count`."""
        self._ask(
            "begin",
            run=run,
            expected=expected,
            delay=delay,
            hold=hold,
            sample=str(sample) if sample else None,
            sample_every=sample_every,
        )

    def report(self) -> dict[str, Any]:
        """What came so far: `bench.sink.Count.report`."""
        return self._ask("report")

    def wait(self, seconds: float) -> dict[str, Any]:
        """The report as soon as every expected message came, or after so many seconds."""
        return self._ask("wait", seconds=seconds)

    def open(self) -> None:
        """Accept connections again."""
        self._ask("open")

    def close(self) -> None:
        """Refuse connections."""
        self._ask("close")

    def stop(self) -> None:
        """End the program."""
        self._program.kill()
        self._program.wait()

    def _ask(self, do: str, **order: Any) -> dict[str, Any]:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self._program.stdin.flush()
        answer: dict[str, Any] = json.loads(self._program.stdout.readline())
        return answer
