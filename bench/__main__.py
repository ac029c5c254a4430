"""`python3 -m bench`, which `make bench` calls."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import contenders, plots, report
from bench.options import Options
from bench.results import Results
from bench.workloads import QUEUES, WORKLOADS
from lab.places import PROJECT, Places
from lab.preflight import CannotRunHere, require_a_fit_machine

app = typer.Typer(add_completion=False, rich_markup_mode=None)
console = Console()

FOLDER = PROJECT / "docs" / "performance"
README = "README.md"
RESULTS = "results.json"

# With process-id and mount namespaces of its own: the kernel ends all in them with the bench.
_NAMESPACES = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc")
_QUICK_SCALE = 0.02
_QUICK_QUEUES = "100"


@app.command()
def bench(
    runs: Annotated[int, typer.Option(min=1, help="How often each stream is measured.")] = 5,
    queue_runs: Annotated[
        int, typer.Option(min=1, help="How often each long queue is measured.")
    ] = 1,
    who: Annotated[
        str, typer.Option("--contenders", help="Some of them, with commas between.")
    ] = ",".join(contenders.NAMES),
    workloads: Annotated[
        str, typer.Option(help='Some of them, with commas between; "" for none.')
    ] = ",".join(WORKLOADS),
    queues: Annotated[
        str, typer.Option(help='Lengths of deferred queues, with commas between; "" for none.')
    ] = ",".join(map(str, QUEUES)),
    scale: Annotated[
        float, typer.Option(min=0.001, max=10, help="The share of each workload's messages.")
    ] = 1.0,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Everything once with few messages, to see that it works."),
    ] = False,
    bounds: Annotated[
        bool, typer.Option(help="Measure signatures and writes to the disk by themselves.")
    ] = True,
    add: Annotated[
        bool, typer.Option("--add", help="Keep results.json's other workloads and queues.")
    ] = False,
    output: Annotated[Path, typer.Option(help="The folder to write to.")] = FOLDER,
    only_report: Annotated[
        bool, typer.Option("--only-report", help="Measure nothing: write results.json's account.")
    ] = False,
) -> None:
    """Measure what each contender delivers in a second, and write the account of it."""
    folder = output.absolute()
    if not only_report:
        options = Options(
            contenders=_chosen(who, contenders.NAMES),
            workload_names=_chosen(workloads, WORKLOADS),
            queues=tuple(int(n) for n in (_QUICK_QUEUES if quick else queues).split(",") if n),
            runs=1 if quick else runs,
            queue_runs=1 if quick else queue_runs,
            scale=_QUICK_SCALE if quick else scale,
            bounds=bounds,
            add=add,
            json=folder / RESULTS,
        )
        if status := _run(options):
            raise typer.Exit(status)
    results = Results.read(folder / RESULTS)
    for table in report.tables(results):
        console.print(table)
    plots.write(results, folder)
    readme = folder / README
    if not readme.exists():
        readme.write_text(f"{report.BEGIN}\n{report.END}\n", encoding="utf-8")
    report.write(results, readme)
    console.print(f"Written: {folder}")


def _chosen(names: str, known: object) -> tuple[str, ...]:
    chosen = tuple(name for name in names.split(",") if name)
    assert isinstance(known, tuple | dict)
    if unknown := [name for name in chosen if name not in known]:
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(known)}")
    return chosen


def _run(options: Options) -> int:
    """Run the bench in namespaces of its own; its exit status."""
    for ending in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    try:
        require_a_fit_machine(Places())
    except CannotRunHere as error:
        Console(stderr=True).print(str(error), style="red", markup=False)
        return 1
    process = subprocess.Popen(
        [*_NAMESPACES, sys.executable, "-m", "bench.run", options.to_json()],
        cwd=PROJECT,
        stdin=subprocess.PIPE,  # the bench ends when this does, so when this process ends
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
