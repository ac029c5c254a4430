"""`python3 -m bench`, which `make bench` calls."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import contenders
from bench.options import Options
from bench.workloads import WORKLOADS
from lab.places import PROJECT

app = typer.Typer(add_completion=False, no_args_is_help=False)

# With process-id and mount namespaces of its own: the kernel ends all in them with the bench.
_NAMESPACES = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc")


@app.command()
def bench(
    runs: Annotated[int, typer.Option(min=1, help="How often each is measured")] = 5,
    contenders_: Annotated[
        str, typer.Option("--contenders", help="Which, with commas between them")
    ] = ",".join(contenders.NAMES),
    workloads: Annotated[str, typer.Option(help="Which, with commas between them")] = ",".join(
        WORKLOADS
    ),
    scale: Annotated[
        float, typer.Option(min=0.001, max=10, help="Share of each workload's messages to send")
    ] = 1.0,
    output: Annotated[Path, typer.Option(help="Folder for the results")] = PROJECT
    / "docs"
    / "performance",
) -> None:
    """Measure what each contender delivers in a second."""
    options = Options(
        contenders=tuple(contenders_.split(",")),
        workload_names=tuple(workloads.split(",")),
        runs=runs,
        scale=scale,
        json=output.absolute() / "results.json",
    )
    raise typer.Exit(_run(options))


def _run(options: Options) -> int:
    """Run the bench in namespaces of its own; its exit status."""
    for ending in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    process = subprocess.Popen(
        [*_NAMESPACES, sys.executable, "-m", "bench.run", options.to_json()],
        cwd=PROJECT,
        stdin=subprocess.PIPE,  # it ends when this does, so when this process ends
        start_new_session=True,  # Ctrl-C is for this process, which ends the other
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted.")
        return 130
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


if __name__ == "__main__":
    app()
