"""`postern doctor`: look once, until all is fine, or again and again for what changes."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape

from ops import options, verdicts
from ops.deployment import CannotTell, Deployment
from ops.dns_answers import PUBLIC_RESOLVERS, Dns
from ops.doctor import CHECKS, examine
from ops.verdicts import EXIT_STATUS, Finding, Verdict, overall
from stacks.environment import InvalidEnvironment

# Each look runs two commands on each host.
SHORTEST_PAUSE_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is different about one check since the look before; None: it was, or is, not there."""

    before: Finding | None
    after: Finding | None


def changes(before: Iterable[Finding], after: Iterable[Finding]) -> list[Change]:
    """What appeared, went, or has another verdict or other evidence."""
    old = {finding.check: finding for finding in before}
    new = {finding.check: finding for finding in after}
    return [
        Change(before=old.get(check), after=new.get(check))
        for check in {**old, **new}
        if old.get(check) != new.get(check)
    ]


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise typer.BadParameter(f"{text} is not an IP address") from None


def _check(text: str) -> str:
    if text not in CHECKS:
        names = ", ".join(f'"{name}"' for name in CHECKS)
        raise typer.BadParameter(f'there is no check "{text}"; the checks are {names}')
    return text


def doctor(
    environment: options.EnvironmentName,
    resolver: Annotated[
        list[str],
        typer.Option(
            parser=_address,
            metavar="ADDRESS",
            help="A public resolver to ask, by its address; may be given repeatedly",
        ),
    ] = list(PUBLIC_RESOLVERS),  # noqa: B006 - Typer copies it
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again, show what changed; Ctrl-C ends")
    ] = False,
    settle: Annotated[
        int,
        typer.Option(
            min=0, metavar="MINUTES", help="Look again until all is fine, at most for so long"
        ),
    ] = 0,
    every: Annotated[
        int,
        typer.Option(
            min=SHORTEST_PAUSE_SECONDS, help="Seconds between two looks of --watch or --settle"
        ),
    ] = 60,
    without: Annotated[
        list[str],
        typer.Option(
            parser=_check, metavar="CHECK", help="Leave this check out; may be given repeatedly"
        ),
    ] = [],  # noqa: B006 - Typer copies it
    as_json: options.Json = False,
) -> None:
    """Say what is true, what is wrong and what to do: stacks, DNS, addresses, hosts, blocklists.

    Exit status 0: all is fine; 1: something is wrong; 2: something could not be told. With --watch
    it is that of the last look, and --json prints one line for each look that saw a change. With
    --settle it is that of the last look too, and only that look is shown: after a deployment,
    alarms, hosts and caches of DNS need some minutes. A check that --without names ("Blocklists",
    say, whose lists refuse to answer a cloud's resolver) is not made and counts for nothing; a name
    that no check has is an error that lists them all.
    """
    if settle and watch:
        raise typer.BadParameter("--settle ends when all is fine, --watch never: give one of them")

    def look() -> list[Finding]:
        return examine(Deployment.load(environment), Dns(public=resolver), without=without)

    with options.told_errors(as_json=as_json):
        findings = _settle(look, seconds=settle * 60, every=every)
    if watch:
        raise typer.Exit(EXIT_STATUS[_watch(findings, look, every=every, as_json=as_json)])
    if as_json:
        typer.echo(verdicts.as_json(findings, environment=environment))
    else:
        verdicts.show(findings, options.console)
    raise typer.Exit(EXIT_STATUS[overall(findings)])


def _settle(look: Callable[[], list[Finding]], *, seconds: float, every: float) -> list[Finding]:
    """What the first look finds that finds all fine, or the last one that begins within `seconds`.

    Raises what that last look raises.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            findings = look()
            if overall(findings) is Verdict.FINE:
                return findings
            failure = None
        except CannotTell as error:
            findings, failure = [], error
        if time.monotonic() + every > end:
            if failure is not None:
                raise failure
            return findings
        time.sleep(every)


def _watch(
    findings: list[Finding], look: Callable[[], list[Finding]], *, every: float, as_json: bool
) -> Verdict:
    """Show the first look's findings, and of the later ones what changed; Ctrl-C returns.

    The verdict is that of the last look; a look that failed as a whole could not tell.
    """
    tell = _tell_as_json if as_json else _tell
    tell(changes([], findings))
    verdict = overall(findings)
    failure = ""
    try:
        while True:
            time.sleep(every)
            try:
                before, findings = findings, look()
            except (CannotTell, InvalidEnvironment) as error:  # credentials that ran out, say
                verdict = Verdict.UNKNOWN
                if str(error) != failure:
                    failure = str(error)
                    tell([Change(before=None, after=_failed(failure))])
                continue
            verdict, failure = overall(findings), ""
            if changed := changes(before, findings):
                tell(changed)
    except KeyboardInterrupt:
        return verdict


def _failed(failure: str) -> Finding:
    return Finding(
        check="This look",
        verdict=Verdict.UNKNOWN,
        evidence=failure,
        remedy="It is tried again; what was found before stands until then.",
    )


def _tell(changed: Iterable[Change]) -> None:
    options.console.rule(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    shown = []
    for change in changed:
        before, after = change.before, change.after
        if after is None:
            assert before is not None
            options.console.print(f"No longer there: {escape(before.check)}")
        elif before is None:
            shown.append(after)
        else:
            evidence = f"{after.evidence}\nbefore: {before.verdict}, {before.evidence}"
            shown.append(replace(after, evidence=evidence))
    if shown:
        verdicts.show(shown, options.console)


def _tell_as_json(changed: Iterable[Change]) -> None:
    document = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "changes": [asdict(change) for change in changed],
    }
    typer.echo(json.dumps(document))
