"""`postern lab`: keep the lab, use it, look into it."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lab.cloud.cloud import CloudError
from lab.control import LabError, NotRunning
from lab.faults.catalogue import FAULTS as HOST_FAULTS
from lab.faults.growth import measure
from lab.faults.report import Report
from lab.faults.trial import run as run_trial
from lab.internet.receivers.sinkhole import BEHAVIOURS, Behaviour
from lab.internet.verdict import Verdict, passes, table
from lab.internet.zones import FAULTS, SERVER_FAULTS
from lab.lab import Lab
from lab.places import Places
from lab.preflight import CannotRunHere, require_a_fit_machine
from lab.steps import Steps
from stacks.environment import MOST_ZONES

app = typer.Typer(
    no_args_is_help=True,
    help="The proof on one machine: emulated AWS, real Debian, real mail, real receivers.",
)
console = Console(soft_wrap=False)

# Without a name server no host can start.
DNS_FAULTS = FAULTS.keys() - set(SERVER_FAULTS)
_LISTED_FAULTS = ", ".join(sorted(DNS_FAULTS))
_RECIPIENTS = ["anyone@example.net", "anyone@example.org"]

Zones = Annotated[
    int, typer.Option(min=1, max=MOST_ZONES, help="Availability zones, a host in each")
]
HostName = Annotated[
    str, typer.Option("--host", help="Which mail host, if there are several: its zone or its id")
]


@contextmanager
def _told_errors() -> Iterator[None]:
    """Show an expected failure as its sentence, with exit status 1.

    A hang-up or a termination is taken as Ctrl-C, so that a lab that was being started is ended.
    """
    for ending in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    try:
        yield
    except (CannotRunHere, LabError) as error:
        Console(stderr=True, soft_wrap=True).print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted.")
        raise typer.Exit(130) from None


@contextmanager
def _passing_lab() -> Iterator[tuple[Lab, Steps]]:
    """A lab for one command, ended whatever happens."""
    steps = Steps(console)
    lab = Lab.start(steps=steps, keep=False)
    try:
        yield lab, steps
    finally:
        with steps.step("Ending the lab"):
            lab.end()


@app.command()
def fit() -> None:
    """Tell whether this machine can run the lab, and what is missing."""
    with _told_errors():
        require_a_fit_machine(Places())


@app.command("try")
def try_out(
    fault: Annotated[
        list[str] | None,
        typer.Option(help=f"Publish DNS with a fault: {_LISTED_FAULTS}"),
    ] = None,
    zones: Zones = 1,
) -> None:
    """The main job, once through: deploy, boot, send from each host, judge, end."""
    if unknown := set(fault or []) - DNS_FAULTS:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: there are {_LISTED_FAULTS}")
    with _told_errors():
        with _passing_lab() as (lab, steps):
            lab.publish(fault or [])
            _deploy(lab, steps, zones=zones)
            subject = "From a clone to a mail that every check passes"
            hosts = lab.hosts
            verdicts = {
                f"{zone} {host}": _send(lab, steps, _RECIPIENTS, subject, host=host)
                for host, zone in hosts.items()
            }
        for name, found in verdicts.items():
            if zones > 1:
                console.print(f"\nFrom the host in {name}:", style="bold", highlight=False)
            _show(found)
        console.print(f"[dim]{steps.elapsed:.0f} s in all[/dim]")
        fine = len(verdicts) == zones and all(
            passes(verdict) for found in verdicts.values() for verdict in found
        )
        raise typer.Exit(0 if fine else 1)


@app.command()
def rollback() -> None:
    """Deploy while DNS holds another DKIM key: the host refuses, and the deployment rolls back."""
    with _told_errors(), _passing_lab() as (lab, steps):
        lab.publish(["dkim-broken"])
        with steps.step("CDK bootstrap, and synthesis of the stacks"):
            lab.bootstrap()
        with steps.step("CDK deploy, which has to fail"):
            try:
                lab.deploy()
            except CloudError as refusal:
                told = refusal
            else:
                raise LabError("The deployment turned green with a key that DNS does not confirm.")
        console.print("It was refused and rolled back, as it has to be:", style="green")
        console.print(str(told), markup=False, highlight=False, soft_wrap=True)


@app.command()
def faults(
    messages: Annotated[
        int, typer.Option(min=10, help="Messages in the stream of each fault")
    ] = 500,
    only: Annotated[
        list[str] | None, typer.Option(help="Only faults with this in their name")
    ] = None,
    queues: Annotated[
        str, typer.Option(help="Sizes of the long queues to measure, such as 1000,5000,20000")
    ] = "1000,5000,20000",
    report: Annotated[
        Path | None, typer.Option(help="Write the tables into this file too, as Markdown")
    ] = None,
) -> None:
    """Every fault under a stream of mail, and the account of each message: nothing may be lost."""
    chosen = [f for f in HOST_FAULTS if not only or any(text in f.name for text in only)]
    sizes = [int(size) for size in queues.split(",") if size]
    found = Report(messages=messages)
    with _told_errors():
        with _passing_lab() as (lab, steps):
            _deploy(lab, steps)
            for fault in chosen:
                with steps.step(fault.name):
                    try:
                        found.results.append(
                            run_trial(fault, lab, messages=messages, seconds=messages / 50)
                        )
                    except LabError as broken:  # the others are tried all the same
                        found.broken[fault.name] = str(broken)
                        steps.detail(f"BROKEN: {broken}")
                _write(found, report)
            for size in sizes:
                with steps.step(f"a queue of {size} deferred messages"):
                    found.growth.append(measure(lab, messages=size))
                _write(found, report)
        for table_of_faults in found.tables():
            console.print(table_of_faults)
        raise typer.Exit(1 if found.broken else 0)


def _write(found: Report, report: Path | None) -> None:
    if report is not None:
        report.write_text(found.markdown(), encoding="utf-8")


@app.command()
def sinkhole(
    behaviour: Annotated[Behaviour, typer.Argument(help="What it does with mail from now on")],
) -> None:
    """Tell the sinkhole, the receiver of every name below sinkhole.example, how to behave."""
    with _told_errors():
        Lab.find().sinkhole(behaviour)
        console.print(f"The sinkhole {BEHAVIOURS[behaviour]}.")


@app.command()
def up(zones: Zones = 1) -> None:
    """Start the lab, deploy into it, and keep it."""
    with _told_errors():
        steps = Steps(console)
        lab = Lab.start(steps=steps, keep=True)
        try:
            _deploy(lab, steps, zones=zones)
        except BaseException:
            lab.end()
            raise
        console.print(
            "The lab is up. Next: `postern lab send`, `postern lab operator -- postern doctor "
            f"--environment {lab.environment.name}`, `postern lab shell`, `postern lab logs`, "
            "`postern lab status`, `postern lab down`.\n"
            f"Any AWS client works with it: AWS_ENDPOINT_URL={lab.cloud.endpoint} "
            "AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test"
        )


@app.command()
def send(
    to: Annotated[list[str] | None, typer.Option(help="A recipient; may be repeated")] = None,
    subject: str = "A mail from the lab",
    text: str = "Sent with sendmail -t on the mail host.",
    host: HostName = "",
) -> None:
    """Send a message from the mail host and show what the receivers say."""
    with _told_errors():
        verdicts = _send(Lab.find(), Steps(console), to or _RECIPIENTS, subject, text, host=host)
        _show(verdicts)
        raise typer.Exit(0 if all(map(passes, verdicts)) else 1)


@app.command()
def shell(host: HostName = "") -> None:
    """Be root on the mail host."""
    with _told_errors():
        command = Lab.find().host_command("bash", "--login", host=host)
    raise typer.Exit(subprocess.run(command, check=False).returncode)


@app.command(context_settings={"ignore_unknown_options": True})
def operator(
    command: Annotated[
        list[str] | None, typer.Argument(help="What to run, after --; a shell if left out")
    ] = None,
) -> None:
    """Be the operator: this machine's files, the lab's DNS, and AWS's APIs under their names."""
    with _told_errors():
        argv = Lab.find().operator_command(*(command or ["bash"]))
    raise typer.Exit(subprocess.run(argv, check=False).returncode)


@app.command()
def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come")] = False,
    host: HostName = "",
) -> None:
    """Show the mail host's journal since it booted."""
    with _told_errors():
        options = ["--follow"] if follow else ["--no-pager"]
        command = Lab.find().host_command("journalctl", "--boot", *options, host=host)
    raise typer.Exit(subprocess.run(command, check=False).returncode)


@app.command()
def status() -> None:
    """Show what runs and where its files are."""
    with _told_errors():
        lab = Lab.find()
        console.print(f"emulated AWS     {lab.cloud.endpoint}")
        hosts = lab.hosts
        for instance, zone in hosts.items():
            console.print(f"mail host        {instance} in {zone}")
        console.print(f"received mail    {lab.places.received}")
        console.print(f"logs             {lab.places.log}, {lab.cloud.cdk_log}")
        list_failed = ("systemctl", "list-units", "--failed", "--plain", "--no-legend")
        failed = [
            f"{zone}: {line}"
            for host, zone in hosts.items()
            for line in lab.run(*list_failed, host=host).stdout.splitlines()
        ]
        console.print(f"failed units     {'; '.join(failed) or 'none'}", markup=False)
        raise typer.Exit(1 if failed else 0)


@app.command()
def down() -> None:
    """End the lab and everything in it; received mail stays."""
    with _told_errors():
        try:
            lab = Lab.find()
        except NotRunning:
            console.print("No lab is running.")
            return
        with Steps(console).step("Ending the lab"):
            lab.end()


def _deploy(lab: Lab, steps: Steps, *, zones: int = 1) -> None:
    with steps.step("CDK bootstrap, and synthesis of the stacks"):
        lab.bootstrap(zones=zones)
    hosts = "a host boots, installs, tests itself and signals"
    if zones > 1:
        hosts = f"{zones} hosts, one after the other: each boots, tests itself and signals"
    with steps.step(f"CDK deploy: {hosts}"):
        lab.deploy()
    for received in lab.signals():
        console.print(f"  MailHosts: {received}", highlight=False)


def _send(
    lab: Lab,
    steps: Steps,
    to: list[str],
    subject: str,
    text: str = "It works.\n",
    *,
    host: str = "",
) -> list[Verdict]:
    receivers = sorted({f"mx.{address.rpartition('@')[2]}" for address in to})
    with steps.step(f"Sending a mail with sendmail -t on the host {host}".rstrip()):
        message_id = lab.send(to=to, subject=subject, text=text, host=host)
    with steps.step(f"Waiting for {' and '.join(receivers)}"):
        return lab.wait_for(message_id=message_id, receivers=receivers)


def _show(verdicts: list[Verdict]) -> None:
    console.print(table(verdicts))
    if all(map(passes, verdicts)):
        console.print("[green]Every check passes at every receiver.[/green]")
    else:
        console.print("[red]Something is wrong; each ✗ says what the receiver saw.[/red]")
