"""The plots in docs/performance/, from the results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # no display

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.results import Measured, Results

THROUGHPUT = "throughput.png"
CPU = "cpu.png"
QUEUES = "queues.png"

_COLOURS: Mapping[str, str] = {
    "postern": "#1b6ca8",
    "postfix": "#f2a65a",
    "postfix-tuned": "#d1495b",
    "exim": "#8d99ae",
}
_SHARES: Mapping[str, str] = {"mta": "#1b6ca8", "signer": "#d1495b", "rest": "#8d99ae"}
_LABELS = {"mta": "MTA", "signer": "signer", "rest": "rest of the host"}


def write(results: Results, folder: Path) -> list[Path]:
    """Draw what there is: throughput.png, cpu.png, queues.png; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    streams = [m for m in results.workloads.values() if m.workload.messages > 1]
    written = []
    if streams:
        written += [_throughput(streams, folder), _cpu(streams, folder)]
    if results.queues:
        written.append(_queues(results, folder))
    return written


def _throughput(streams: list[Measured], folder: Path) -> Path:
    contenders = list(dict.fromkeys(name for m in streams for name in m.contenders))
    figure, axes = plt.subplots(figsize=(10, 1.2 + 0.9 * len(streams)), layout="constrained")
    height = 0.8 / len(contenders)
    for place, name in enumerate(contenders):
        rates = [m.per_second(name) or 0.0 for m in streams]
        exact = [[s.per_second for s in m.of(name) if s.exact] or [0.0] for m in streams]
        spread = [
            [rate - min(all_) for rate, all_ in zip(rates, exact, strict=True)],
            [max(all_) - rate for rate, all_ in zip(rates, exact, strict=True)],
        ]
        axes.barh(
            [row + place * height for row in range(len(streams))],
            rates,
            height,
            xerr=spread,
            error_kw={"elinewidth": 0.8, "capsize": 2},
            label=name,
            color=_COLOURS.get(name),
        )
    axes.set_yticks(
        [row + 0.4 - height / 2 for row in range(len(streams))],
        [m.workload.name for m in streams],
    )
    axes.invert_yaxis()
    axes.set_xlabel("delivered messages per second: median, least and most")
    axes.legend()
    return _saved(figure, folder / THROUGHPUT)


def _cpu(streams: list[Measured], folder: Path) -> Path:
    bars = [(m, name) for m in streams for name in m.contenders]
    figure, axes = plt.subplots(figsize=(10, 1.2 + 0.28 * len(bars)), layout="constrained")
    left = [0.0] * len(bars)
    for who, colour in _SHARES.items():
        widths = [m.cpu(name, who) or 0.0 for m, name in bars]
        axes.barh(range(len(bars)), widths, left=left, label=_LABELS[who], color=colour)
        left = [at + width for at, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(bars)), [f"{m.workload.name}: {name}" for m, name in bars])
    axes.invert_yaxis()
    axes.set_xlabel("CPU milliseconds a delivered message, median")
    axes.legend()
    return _saved(figure, folder / CPU)


def _queues(results: Results, folder: Path) -> Path:
    figure, (idle, drain) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    contenders = list(
        dict.fromkeys(name for queue in results.queues.values() for name in queue.contenders)
    )
    for name in contenders:
        measured = [queue for queue in results.queues.values() if queue.of(name)]
        style = {"marker": "o", "label": name, "color": _COLOURS.get(name)}
        idle.plot(
            [queue.messages for queue in measured],
            [queue.idle_cpu(name) or 0.0 for queue in measured],
            **style,
        )
        emptied = [queue for queue in measured if queue.drain_seconds(name)]
        drain.plot(
            [queue.messages for queue in emptied],
            [queue.drain_seconds(name) or 0.0 for queue in emptied],
            **style,
        )
    idle.set_ylabel("CPU seconds of 30 idle seconds")
    drain.set_ylabel("seconds to drain")
    for axes in (idle, drain):
        axes.set_xlabel("deferred messages")
        axes.set_ylim(bottom=0)
        axes.legend()
    return _saved(figure, folder / QUEUES)


def _saved(figure: Figure, file: Path) -> Path:
    # Without the version of what drew it: the file changes only with what it shows.
    figure.savefig(file, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return file
