"""The account of a bench: tables for a terminal and for docs/performance/README.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from bench import plots
from bench.results import DEFAULT, REFERENCE, Measured, MeasuredQueue, Results
from bench.workloads import WORKLOADS

BEGIN = "<!-- Written by `make bench` from results.json; changes here are lost. -->"
END = "<!-- The end of what `make bench` writes. -->"
_OURS = "postern"
_UNKNOWN = "-"
_RATES = "Delivered messages per second"
_CPU = "CPU milliseconds a message"
_QUEUE = "A queue of deferred messages"
_PLOTS = {_RATES: plots.THROUGHPUT, _CPU: plots.CPU, _QUEUE: plots.QUEUES}

Row = Sequence[str]


def tables(results: Results) -> list[Table]:
    """The account for a terminal."""
    made = []
    for title, columns, rows in _tables(results):
        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        made.append(table)
    return made


def markdown(results: Results) -> str:
    """The account for the documentation, without the markers."""
    about = results.about
    lines = [
        f"{about.get('date', _UNKNOWN)}, {about.get('processors', _UNKNOWN)} processors "
        f"({about.get('processor', 'unknown')}), medians of alternating runs. Contenders: "
        + "; ".join(f"`{name}`, {entry['title']}" for name, entry in results.contenders.items())
        + ".",
        "",
    ]
    if any(m.workload != WORKLOADS[m.workload.name] for m in results.workloads.values()):
        lines += ["**A trial, with other numbers of messages than the workloads have.**", ""]
    for title, columns, rows in _tables(results):
        lines += [f"### {title}", ""]
        if title in _PLOTS:
            lines += [f"![{title}]({_PLOTS[title]})", ""]
        lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines.append("")
    for name, entry in results.contenders.items():
        if entry["configuration"]:
            lines += [f"### Settings of `{name}`", "", "| setting | why |", "|---|---|"]
            lines += [f"| `{setting}` | {why} |" for setting, why in entry["configuration"].items()]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def write(results: Results, readme: Path) -> None:
    """Put the account between the markers of the file, which keeps the rest.

    Raises:
        ValueError: the file has not exactly one of each marker, in order.
    """
    text = readme.read_text("utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{readme} must have these lines once, in this order: {BEGIN} {END}")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n\n{markdown(results)}\n{END}{after}", encoding="utf-8")


def _tables(results: Results) -> Iterator[tuple[str, Row, list[Row]]]:
    """Title, columns and rows of each table that has rows."""
    streams = [m for m in results.workloads.values() if m.workload.messages > 1]
    single = [m for m in results.workloads.values() if m.workload.messages == 1]
    if streams:
        yield (
            "Workloads",
            ("workload", "messages", "what"),
            [(m.workload.name, f"{m.workload.messages:,}", m.workload.title) for m in streams],
        )
        yield (
            _RATES,
            (
                *("workload", "contender", "per second", "least", "most"),
                *("to tuned Postfix", "to the better Postfix", "exact runs"),
            ),
            [row for measured in streams for row in _rates(measured)],
        )
        yield (
            _CPU,
            ("workload", "contender", "MTA", "signer", "rest of the host", "source", "sink"),
            [row for measured in streams for row in _cpu(measured)],
        )
    if single:
        yield (
            "A single mail on an idle host, from the connection to the sink",
            ("contender", "seconds"),
            [
                (name, _number(measured.seconds(name), 2))
                for measured in single
                for name in measured.contenders
            ],
        )
    if results.queues:
        yield (
            _QUEUE,
            ("messages", "contender", "CPU of 30 idle seconds", "drained in", "per second"),
            [row for queue in results.queues.values() for row in _queue(queue)],
        )
    if results.bounds:
        yield "Bounds", ("what", "per second"), list(_bounds(results))


def _rates(measured: Measured) -> Iterator[Row]:
    for name in measured.contenders:
        exact = [s.per_second for s in measured.of(name) if s.exact]
        yield (
            measured.workload.name,
            name,
            _number(measured.per_second(name)),
            _number(min(exact, default=None)),
            _number(max(exact, default=None)),
            _number(measured.ratio(name), 2),
            _number(to_the_better_postfix(measured, name), 2),
            f"{measured.exact(name)} of {len(measured.of(name))}",
        )


def to_the_better_postfix(measured: Measured, contender: str) -> float | None:
    """How many times as fast as the faster one of both Postfixes, by medians."""
    ratios = [measured.ratio(contender, to) for to in (DEFAULT, REFERENCE)]
    return min((ratio for ratio in ratios if ratio), default=None)


def _cpu(measured: Measured) -> Iterator[Row]:
    for name in measured.contenders:
        shares = (measured.cpu(name, who) for who in ("mta", "signer", "rest", "source", "sink"))
        yield (measured.workload.name, name, *(_number(share, 2) for share in shares))


def _queue(queue: MeasuredQueue) -> Iterator[Row]:
    for name in queue.contenders:
        seconds = queue.drain_seconds(name)
        if seconds:
            drained, rate = f"{seconds:.1f} s", f"{queue.messages / seconds:.0f}"
        else:
            came = min(sample.delivered for sample in queue.of(name))
            drained, rate = f"not: {came:,} of {queue.messages:,} came", _UNKNOWN
        idle = _number(queue.idle_cpu(name), 2)
        yield f"{queue.messages:,}", name, f"{idle} s", drained, rate


def _bounds(results: Results) -> Iterator[Row]:
    words = {
        "signatures": "RSA-2048 signatures on one processor (openssl speed)",
        "signatures_all": "RSA-2048 signatures on all processors",
        "fsync": "files of 10 KB written, fsynced and removed on the queue volume",
        "fsync_20": "the same, twenty at a time",
    }
    for name, value in results.bounds.items():
        yield words.get(name, name), _number(value)
    if ours := [
        measured.cpu(_OURS, "signer")
        for measured in results.workloads.values()
        if measured.workload.messages > 1 and measured.cpu(_OURS, "signer")
    ]:
        signer = min(share for share in ours if share)
        processors = results.about.get("processors", 1)
        yield (
            f"messages, if {_OURS}'s signer had all processors to itself",
            _number(1000 * processors / signer),
        )


def _number(value: float | None, digits: int = 0) -> str:
    return _UNKNOWN if value is None else f"{value:,.{digits}f}"
