"""`postern queue`: what waits on the mail hosts and why, and what to do about it.

The work is done on the hosts, by user_data/operations/postern-queue, with sendmail's own means.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.table import Table

from ops.deployment import CannotTell, Deployment
from ops.on_hosts import Answers, HostName, ask, end
from ops.options import EnvironmentName, Json, console, told_errors
from ops.verdicts import EXIT_STATUS, Verdict

PROGRAM: Final = "/usr/local/sbin/postern-queue"
RETRY_SECONDS: Final = 30
# A queue of many thousands is read and worked through, or sendmail waits for its turn.
RUN_SECONDS: Final = 180

app = typer.Typer(no_args_is_help=True, help="The mail that waits: why, and what to do about it")

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", show_default=False)]
Destination = Annotated[
    str, typer.Option("--destination", "-d", help="Messages with a recipient at this domain")
]
Reason = Annotated[
    str, typer.Option("--reason", "-r", help="Messages whose reason has this text in it")
]
All = Annotated[bool, typer.Option("--all", help="Every message")]
Limit = Annotated[int, typer.Option("--limit", min=0, help="So many messages of each host")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")]


@app.command("list")
def list_messages(
    environment: EnvironmentName,
    ids: Ids = None,
    destination: Destination = "",
    reason: Reason = "",
    limit: Limit = 100,
    host: HostName = "",
    as_json: Json = False,
) -> None:
    """Show what waits, by destination and reason, and the oldest messages."""
    with told_errors(as_json=as_json):
        deployment = Deployment.load(environment)
        chosen = _choice(ids, destination, reason)
        answers = _ask(deployment, host, "list", *chosen, f"--limit={limit}")
    document = merged(answers)
    if not as_json:
        show_list(document)
    end(Verdict.FINE, answers.errors, document if as_json else None)


@app.command()
def show(
    environment: EnvironmentName,
    message_id: Annotated[str, typer.Argument(metavar="ID")],
    host: HostName = "",
    as_json: Json = False,
) -> None:
    """Show a message's envelope and headers; nobody sees its body."""
    with told_errors(as_json=as_json):
        answers = _ask(Deployment.load(environment), host, "show", message_id)
    messages = list(answers.items("messages"))
    if not as_json:
        for message in messages:
            _show_message(message)
        if not messages:
            console.print(f"No queue has {message_id}: it was delivered, returned or deleted.")
    verdict = Verdict.FINE if messages else Verdict.UNKNOWN if answers.errors else Verdict.WRONG
    end(verdict, answers.errors, {"messages": messages} if as_json else None)


@app.command()
def retry(
    environment: EnvironmentName,
    ids: Ids = None,
    destination: Destination = "",
    reason: Reason = "",
    everything: All = False,
    host: HostName = "",
    as_json: Json = False,
) -> None:
    """Try messages now, however lately they were tried, and show what came of it."""
    _act("retry", environment, _choice(ids, destination, reason, everything), host, as_json)


@app.command()
def hold(
    environment: EnvironmentName,
    ids: Ids = None,
    destination: Destination = "",
    reason: Reason = "",
    everything: All = False,
    host: HostName = "",
    as_json: Json = False,
) -> None:
    """Keep messages in the queue untried (sendmail's quarantine), until they are released."""
    _act("hold", environment, _choice(ids, destination, reason, everything), host, as_json)


@app.command()
def release(
    environment: EnvironmentName,
    ids: Ids = None,
    destination: Destination = "",
    reason: Reason = "",
    everything: All = False,
    host: HostName = "",
    as_json: Json = False,
) -> None:
    """Let held messages be tried again."""
    _act("release", environment, _choice(ids, destination, reason, everything), host, as_json)


@app.command()
def delete(
    environment: EnvironmentName,
    ids: Ids = None,
    destination: Destination = "",
    reason: Reason = "",
    everything: All = False,
    yes: Yes = False,
    host: HostName = "",
    as_json: Json = False,
) -> None:
    """Delete messages for ever, without a word to their senders; asks first."""

    def confirmed(deployment: Deployment, chosen: Sequence[str]) -> Sequence[str]:
        if yes:
            return chosen
        if as_json:
            raise CannotTell("With --json nobody can be asked: add --yes.")
        listed = [word for word in chosen if word != "--all"]
        answers = _ask(deployment, host, "list", *listed)
        for error in answers.errors:
            console.print(error, style="red", markup=False)
        shown = merged(answers)
        if not shown["total"]:
            return chosen  # the hosts say what is unknown
        show_list(shown)
        if not typer.confirm(f"Delete {_messages(shown['total'])} for ever?"):
            raise typer.Exit(EXIT_STATUS[Verdict.WRONG])
        # Only what was shown: what comes meanwhile stays.
        until = min(answer["time"] for _, answer in answers.by_host) - 1
        return chosen if ids else [*chosen, f"--before={until}"]

    choice = _choice(ids, destination, reason, everything)
    _act("delete", environment, choice, host, as_json, confirmed)


def merged(answers: Answers) -> dict[str, Any]:
    """All hosts' lists as one: `total`, `groups` and `messages`, and how many were left out."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for group in answers.items("groups"):
        key = (group["destination"], group["reason"])
        one = groups.setdefault(
            key,
            {"destination": key[0], "reason": key[1], "messages": 0, "oldest_age_seconds": 0},
        )
        one["messages"] += group["messages"]
        one["oldest_age_seconds"] = max(one["oldest_age_seconds"], group["oldest_age_seconds"])
    return {
        "total": answers.total("total"),
        "groups": sorted(groups.values(), key=lambda group: -group["messages"]),
        "groups_left_out": answers.total("groups_left_out"),
        "messages": sorted(answers.items("messages"), key=lambda message: message["created"]),
        "messages_left_out": answers.total("messages_left_out"),
    }


def merged_deeds(answers: Answers) -> dict[str, Any]:
    """What was done and what was not, on any host; an id is unknown when no host knows it."""
    done, not_done = list(answers.items("done")), list(answers.items("not_done"))
    known = {deed["id"] for deed in [*done, *not_done] if deed.get("why") != "unknown"}
    unknown = {d["id"]: {"id": d["id"], "why": "unknown"} for d in not_done}
    # With a host that could not be asked an id may be there.
    why = "unknown to the hosts that answered" if answers.errors else "unknown"
    return {
        "done_total": answers.total("done_total"),
        "done": done,
        "not_done": [
            *({**one, "why": why} for id_, one in unknown.items() if id_ not in known),
            *(deed for deed in not_done if deed["why"] != "unknown"),
        ],
    }


def _act(
    action: str,
    environment: str,
    choice: Sequence[str],
    host: str,
    as_json: bool,
    before: Callable[[Deployment, Sequence[str]], Sequence[str]] | None = None,
) -> None:
    with told_errors(as_json=as_json):
        if not choice:
            raise CannotTell(f"Say what to {action}: ids, --destination, --reason or --all.")
        deployment = Deployment.load(environment)
        if before is not None:
            choice = before(deployment, choice)
        answers = _ask(deployment, host, action, *choice)
    document = merged_deeds(answers)
    if not as_json:
        for deed in document["done"]:
            console.print(f"{_place(deed)}: {deed['outcome']}", markup=False)
        for deed in document["not_done"]:
            console.print(f"{_place(deed)}: not done, {deed['why']}", style="red", markup=False)
        more = document["done_total"] - len(document["done"])
        if more > 0:
            console.print(f"and {_messages(more)} more")
        if not document["done"] and not document["not_done"] and not answers.errors:
            console.print("No message is like that.")
    verdict = Verdict.WRONG if document["not_done"] else Verdict.FINE
    end(verdict, answers.errors, document if as_json else None)


def _choice(
    ids: Sequence[str] | None, destination: str, reason: str, everything: bool = False
) -> list[str]:
    """The host's program's arguments for what the operator named."""
    return [
        *(ids or []),
        *([f"--destination={destination}"] if destination else []),
        *([f"--reason={reason}"] if reason else []),
        *(["--all"] if everything else []),
    ]


def _ask(deployment: Deployment, host: str, action: str, *arguments: str) -> Answers:
    argv = [PROGRAM, action, *arguments]
    if action == "retry":
        argv.append(f"--wait={RETRY_SECONDS}")
    return ask(deployment, argv, host=host, seconds=RUN_SECONDS)


def show_list(document: dict[str, Any]) -> None:
    """Two tables: the groups, and the messages."""
    if not document["total"]:
        console.print("Nothing waits.")
        return
    groups = Table("destination", "why", "messages", "oldest", title="By destination and reason")
    for group in document["groups"]:
        groups.add_row(
            escape(group["destination"] or "(no recipient)"),
            escape(group["reason"]),
            str(group["messages"]),
            age(group["oldest_age_seconds"]),
        )
    console.print(groups)
    if document["groups_left_out"]:
        console.print(f"and {document['groups_left_out']} smaller groups")
    messages = Table("zone", "id", "state", "age", "tries", "bytes", "from, to and why")
    now = time.time()
    for message in document["messages"]:
        state = message["state"] + (", being delivered" if message["being_delivered"] else "")
        to = ", ".join(message["recipients"])
        if message["recipients_left_out"]:
            to += f" and {message['recipients_left_out']} more"
        messages.add_row(
            message["zone"],
            message["id"],
            state,
            age(now - message["created"]),
            str(message["tries"]),
            str(message["size"]),
            escape(f"{message['sender'] or '<>'} → {to}\n{message['reason']}"),
        )
    if document["messages"]:
        console.print(messages)
    if document["messages_left_out"]:
        console.print(f"and {_messages(document['messages_left_out'])} more (--limit)")


def _show_message(message: dict[str, Any]) -> None:
    table = Table(show_header=False, title=_place(message))
    for key in ("host", "queue", "state", "being_delivered", "sender", "size", "tries", "reason"):
        table.add_row(key.replace("_", " "), escape(str(message[key])))
    table.add_row("age", age(time.time() - message["created"]))
    for recipient in message["recipients"]:
        table.add_row("recipient", escape(f"{recipient['address']}: {recipient['reason']}"))
    if message["recipients_left_out"]:
        table.add_row("recipient", f"and {message['recipients_left_out']} more")
    console.print(table)
    console.print(message["headers"], markup=False, highlight=False, soft_wrap=True)


def _place(message: dict[str, Any]) -> str:
    """An id with its host's zone, and its queue when that is not one of the MTA's."""
    words = [message.get("zone", ""), message["id"]]
    if message.get("queue") == "mqueue-client":
        words.append(f"({message['queue']})")
    return " ".join(word for word in words if word)


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"


def age(seconds: float) -> str:
    """A time span in its two largest units: "3 h 20 min"."""
    minutes = int(max(0, seconds)) // 60
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(max(0, seconds))} s"
