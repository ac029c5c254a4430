"""`postern review`: what a change of the templates means, before anything is deployed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ops.deployment import CannotTell
from ops.options import Json, console, told_errors
from ops.verdicts import EXIT_STATUS


def review(
    base: Annotated[
        str, typer.Option("--base", help="The revision to compare with, such as origin/main")
    ] = "HEAD",
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Write a pull request's comment there too")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare what the working tree makes with a revision's reviewed templates.

    Ends with 1 when something stateful would be lost that acknowledged.toml does not name, and with
    2 when that could not be told.
    """
    # Here and not above: the other commands need not wait for the CDK's parts.
    from review import acknowledged, report
    from review.base import commit_of, snapshots_at, text_at
    from review.examine import examine
    from review.snapshots import NotSynthesised, synthesised

    root = Path()
    with told_errors(as_json=as_json):
        try:
            commit = commit_of(base, root)
            before = snapshots_at(commit, root)
            spent = acknowledged.parse(
                text_at(commit, acknowledged.FILE, root), file=f"{base}:{acknowledged.FILE}"
            )
            file = root / acknowledged.FILE
            text = file.read_text("utf-8") if file.exists() else ""
            entries = acknowledged.parse(text, file=str(acknowledged.FILE))
            try:
                after = synthesised(root)
            except NotSynthesised as error:
                raise CannotTell(str(error)) from None
            found = examine(before, after, entries=entries, spent=spent)
        except CannotTell as error:
            if markdown:
                words = [report.Text("? The review could not tell", strong=True)]
                said = report.Code("text", str(error))
                markdown.write_text(report.as_markdown([*words, said]), encoding="utf-8")
            raise
    compared_with = commit[:12] if commit.startswith(base) else f"{base} ({commit[:12]})"
    blocks = report.document(found, compared_with)
    if markdown:
        markdown.write_text(report.as_markdown(blocks), encoding="utf-8")
    if as_json:
        sys.stdout.write(report.as_json(found, compared_with) + "\n")
    else:
        report.show(blocks, console)
    raise typer.Exit(EXIT_STATUS[found.verdict])
