"""`postern suppressions`: the recipients that the mail hosts refuse to write to, and why.

Each host keeps its own list, beside its queue, with user_data/suppressions/postern-suppressions.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.table import Table

from ops.deployment import CannotTell, Deployment
from ops.on_hosts import Answers, HostName, ask, end
from ops.options import EnvironmentName, Json, console, told_errors
from ops.verdicts import Verdict

PROGRAM: Final = "/usr/local/sbin/postern-suppressions"
DAMAGED: Final = (
    "lines of its list are damaged and left out; the whole is kept in /var/spool/queue/"
    "suppressions.damaged at the next change"
)

app = typer.Typer(no_args_is_help=True, help="Recipients that do not exist, and are refused")

Addresses = Annotated[list[str], typer.Argument(metavar="ADDRESS...")]


@app.command("list")
def list_suppressions(
    environment: EnvironmentName,
    limit: Annotated[int, typer.Option("--limit", min=0, help="So many of each host")] = 200,
    host: HostName = "",
    as_json: Json = False,
) -> None:
    """Show who is refused, since when, and in which words of the receiver."""
    with told_errors(as_json=as_json):
        deployment = Deployment.load(environment)
        answers = ask(deployment, [PROGRAM, "list", f"--limit={limit}"], host=host)
    document = merged(answers)
    if not as_json:
        _show(document)
    damage = _damage(answers)
    verdict = Verdict.WRONG if damage else Verdict.FINE
    end(verdict, [*damage, *answers.errors], document if as_json else None)


@app.command()
def add(
    environment: EnvironmentName,
    addresses: Addresses,
    days: Annotated[int, typer.Option(min=0, help="For so many days; 0 is for ever")] = 0,
    host: HostName = "",
    as_json: Json = False,
) -> None:
    """Refuse mail to recipients, on every host, whatever their receivers say."""
    extra = [f"--days={days}"] if days else []
    _change("add", environment, extra, addresses, host, as_json)


@app.command()
def remove(
    environment: EnvironmentName, addresses: Addresses, host: HostName = "", as_json: Json = False
) -> None:
    """Let mail go to recipients again, on every host, until a receiver refuses them anew."""
    _change("remove", environment, [], addresses, host, as_json)


def merged(answers: Answers) -> dict[str, Any]:
    """All hosts' lists as one, the latest first; an address has the zones that refuse it."""
    found: dict[str, dict[str, Any]] = {}
    for entry in sorted(answers.items("suppressions"), key=lambda one: -one["since"]):
        zone = entry.pop("zone")
        entry.pop("host")
        found.setdefault(entry["address"], {**entry, "zones": []})["zones"].append(zone)
    return {
        "days": max((answer["days"] for _, answer in answers.by_host), default=None),
        "suppressions": list(found.values()),
        "left_out": answers.total("total") - sum(1 for _ in answers.items("suppressions")),
    }


def merged_change(answers: Answers) -> dict[str, Any]:
    """What was changed on any host; an address is not done when no host did it."""
    done: dict[str, list[str]] = {}
    for host, answer in answers.by_host:
        for address in answer["done"]:
            done.setdefault(address, []).append(host.zone)
    not_done = {one["address"]: one["why"] for one in answers.items("not_done")}
    return {
        "done": [{"address": address, "zones": zones} for address, zones in done.items()],
        "not_done": [
            {"address": address, "why": why}
            for address, why in not_done.items()
            if address.strip("<> ").lower() not in done
        ],
    }


def _change(
    action: str,
    environment: str,
    options: Sequence[str],
    addresses: Sequence[str],
    host: str,
    as_json: bool,
) -> None:
    with told_errors(as_json=as_json):
        argv = [PROGRAM, action, *options, *_plain(addresses)]
        answers = ask(Deployment.load(environment), argv, host=host)
    document = merged_change(answers)
    if not as_json:
        verb = {"add": "suppressed", "remove": "no longer suppressed"}[action]
        for one in document["done"]:
            console.print(f"{one['address']}: {verb} in {', '.join(one['zones'])}", markup=False)
        for one in document["not_done"]:
            console.print(f"{one['address']}: {one['why']}", style="red", markup=False)
    damage = _damage(answers)
    verdict = Verdict.WRONG if document["not_done"] or damage else Verdict.FINE
    end(verdict, [*damage, *answers.errors], document if as_json else None)


def _plain(addresses: Sequence[str]) -> list[str]:
    for address in addresses:
        if address.startswith("-"):
            raise CannotTell(f"{address!r} is not an address.")
    return list(addresses)


def _damage(answers: Answers) -> list[str]:
    return [
        f"{host.zone}: {answer['damaged']} {DAMAGED}"
        for host, answer in answers.by_host
        if answer["damaged"]
    ]


def _show(document: dict[str, Any]) -> None:
    if document["days"] == 0:
        console.print("No recipient is learnt ([suppressions] days = 0 in the settings).")
    if not document["suppressions"]:
        console.print("No recipient is suppressed.")
        return
    table = Table("recipient", "zones", "since", "until", "why")
    for entry in document["suppressions"]:
        why = entry["words"] if entry["by"] == "receiver" else "an operator's word"
        table.add_row(
            escape(entry["address"]),
            ", ".join(entry["zones"]),
            _day(entry["since"]),
            _day(entry["until"]) if entry["until"] else "for ever",
            escape(why),
        )
    console.print(table)
    if document["left_out"]:
        console.print(f"and {document['left_out']:,} more (--limit)")


def _day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
