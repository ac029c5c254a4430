"""A host's program on every mail host of an environment: its answers, or why there is none."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console

from ops import run_command
from ops.deployment import CannotTell, Deployment, MailHost
from ops.verdicts import EXIT_STATUS, Verdict

HostName = Annotated[
    str, typer.Option("--host", help="One mail host only: its instance id or availability zone")
]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the hosts printed, by zone, and a sentence for each host that could not be asked."""

    by_host: Sequence[tuple[MailHost, dict[str, Any]]]
    errors: Sequence[str]

    def items(self, key: str) -> Iterator[dict[str, Any]]:
        """Every host's items under `key`, each with its `host` and `zone`: ids are a host's own."""
        for host, answer in self.by_host:
            for item in answer[key]:
                yield {"host": host.instance_id, "zone": host.zone, **item}

    def total(self, key: str) -> int:
        return sum(answer[key] for _, answer in self.by_host)


def ask(
    deployment: Deployment, argv: Sequence[str], *, host: str = "", seconds: int = 60
) -> Answers:
    """Run a program on all hosts, or on the one that is named by instance id or zone.

    Raises:
        CannotTell: there is no such host, or none at all.
    """
    hosts = chosen(deployment, host)

    def one(each: MailHost) -> dict[str, Any] | CannotTell:
        try:
            return run_command.run_json(deployment, each.instance_id, argv, seconds=seconds)
        except CannotTell as problem:
            return problem

    with ThreadPoolExecutor(max_workers=len(hosts)) as threads:
        answers = list(zip(hosts, threads.map(one, hosts), strict=True))
    return Answers(
        by_host=[(each, answer) for each, answer in answers if isinstance(answer, dict)],
        errors=[f"{each.zone}: {no}" for each, no in answers if isinstance(no, CannotTell)],
    )


def chosen(deployment: Deployment, host: str) -> list[MailHost]:
    """All hosts, or the one with this instance id or zone; raises CannotTell when there is none."""
    hosts = deployment.hosts()
    named = [each for each in hosts if host in ("", each.instance_id, each.zone)]
    if not named:
        there = ", ".join(f"{each.instance_id} in {each.zone}" for each in hosts)
        raise CannotTell(f"There is no mail host {host!r}; there is {there}.")
    return named


def end(verdict: Verdict, errors: Sequence[str], document: dict[str, Any] | None) -> None:
    """Print the JSON document if there is one, tell the errors, and end with the exit status.

    A host that could not be asked makes fine into "could not tell".
    """
    if errors and verdict is Verdict.FINE:
        verdict = Verdict.UNKNOWN
    if document is not None:
        json.dump({"verdict": verdict, **document, "errors": list(errors)}, sys.stdout, indent=2)
        sys.stdout.write("\n")
    for error in errors:
        Console(stderr=True, soft_wrap=True).print(error, style="red", markup=False)
    if verdict is not Verdict.FINE:
        raise typer.Exit(EXIT_STATUS[verdict])
