"""`postern send-test`: a message to an address of yours, followed until its receiver has answered.

Each mail host sends one, since each has an address of its own that is judged by itself. The work is
done on the hosts, by user_data/operations/postern-send-test.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.table import Table

from ops.command_lines import postern
from ops.deployment import Deployment
from ops.on_hosts import HostName, ask, end
from ops.options import EnvironmentName, Json, console, told_errors
from ops.verdicts import Verdict

PROGRAM: Final = "/usr/local/sbin/postern-send-test"
# Beyond the waiting: for sending, and for reading the log once more.
MARGIN_SECONDS: Final = 60

# What a message's fate is to the exit status: one that waits may still arrive.
VERDICTS: Final = {
    "delivered": Verdict.FINE,
    "bounced": Verdict.WRONG,
    "refused": Verdict.WRONG,
    "deferred": Verdict.UNKNOWN,
    "unknown": Verdict.UNKNOWN,
}

_MARKS: Final = {
    "delivered": "[green]✓ delivered[/green]",
    "bounced": "[red]✗ bounced[/red]",
    "refused": "[red]✗ refused by this host[/red]",
    "deferred": "[yellow]? deferred[/yellow]",
    "unknown": "[yellow]? not yet known[/yellow]",
}

HOW_TO_READ: Final = """\
Delivered means that the receiving server took the message. What it thinks of it is in the message:
open it, in the spam folder if need be, and look for the header Authentication-Results.
  Gmail    ⋮ > Show original: SPF, DKIM and DMARC each PASS
  Outlook  ⋯ > View > View message source: search for Authentication-Results
  Naver    ⋮ > 원문 보기: search for Authentication-Results
It has to say spf=pass, dkim=pass with header.d={domain}, and dmarc=pass.
Anything else: {doctor} says which record is at fault."""


def send_test(
    environment: EnvironmentName,
    to: Annotated[str, typer.Option("--to", help="A mailbox that you can read")],
    wait: Annotated[
        int, typer.Option("--wait", min=1, max=900, help="Seconds to follow the message")
    ] = 60,
    host: HostName = "",
    as_json: Json = False,
) -> None:
    """Send a message from each mail host, and follow it until its receiver has answered."""
    with told_errors(as_json=as_json):
        deployment = Deployment.load(environment)
        answers = ask(
            deployment,
            [PROGRAM, f"--to={to}", f"--wait={wait}"],
            host=host,
            seconds=wait + MARGIN_SECONDS,
        )
    messages = [
        {"host": each.instance_id, "zone": each.zone, **answer} for each, answer in answers.by_host
    ]
    domain = deployment.settings.sending_domain
    how_to_read = HOW_TO_READ.format(domain=domain, doctor=postern(deployment.settings, "doctor"))
    if not as_json:
        _show(messages)
        if any(message["outcome"] == "delivered" for message in messages):
            console.print(how_to_read, markup=False, highlight=False)
    end(
        _verdict(messages),
        answers.errors,
        {"messages": messages, "how_to_read": how_to_read} if as_json else None,
    )


def _verdict(messages: list[dict[str, Any]]) -> Verdict:
    found = {VERDICTS[message["outcome"]] for message in messages}
    return next((verdict for verdict in Verdict if verdict in found), Verdict.UNKNOWN)


def next_step(message: dict[str, Any]) -> str:
    """What to do about a message that was not delivered; "" for one that was."""
    queue_id = message.get("queue_id") or message.get("submission_id", "")
    match message["outcome"]:
        case "deferred" | "unknown":
            return (
                f"It stays in the queue and is tried again: postern queue show {queue_id}. If it "
                "could not connect at all, see whether port 25 is open: postern doctor."
            )
        case "bounced":
            return (
                "The receiver does not want it, for the reason in its words; a code that begins "
                "with 5.7 is about this server (postern doctor), 5.1 about the mailbox."
            )
        case "refused":
            return (
                "This host refuses to send there. If the recipient is suppressed and exists now: "
                f"postern suppressions remove {message['to']}."
            )
    return ""


def _show(messages: list[dict[str, Any]]) -> None:
    for message in messages:
        table = Table(show_header=False, title=f"{message['zone']} ({message['host']})")
        table.add_row("message", escape(message["subject"]))
        table.add_row("outcome", f"{_MARKS[message['outcome']]} after {message['seconds']} s")
        ids = [message[key] for key in ("submission_id", "queue_id") if key in message]
        table.add_row("queue ids", escape(" → ".join(ids)))
        if message.get("relay"):
            table.add_row("answered by", escape(message["relay"]))
        if message.get("words"):
            table.add_row("in its words", escape(message["words"]))
        if "tls" in message:
            tls = message["tls"]
            shown = f"{tls['version']}, certificate {tls['verify']}" if tls else "none"
            table.add_row("TLS", escape(shown))
        if next_step(message):
            table.add_row("[bold]→[/bold]", escape(next_step(message)))
        console.print(table)
