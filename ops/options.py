"""What the operator's commands have in common: their options, and how they end."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from ops.deployment import CannotTell
from ops.verdicts import EXIT_STATUS, Verdict
from stacks.environment import InvalidEnvironment

EnvironmentName = Annotated[
    str,
    typer.Option(
        "--environment",
        "-e",
        help="The environment: its file's name, no .toml. With POSTERN_SUFFIX set, its sandbox",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document instead of text")]

console = Console()


@contextmanager
def told_errors(*, as_json: bool) -> Iterator[None]:
    """Show what could not be told as its sentence, with exit status 2, in JSON if asked."""
    try:
        yield
    except (CannotTell, InvalidEnvironment) as error:
        if as_json:
            json.dump({"verdict": Verdict.UNKNOWN, "error": str(error)}, sys.stdout, indent=2)
            sys.stdout.write("\n")
        Console(stderr=True, soft_wrap=True).print(str(error), style="red", markup=False)
        raise typer.Exit(EXIT_STATUS[Verdict.UNKNOWN]) from None
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted.")
        raise typer.Exit(130) from None


def lists_by_default(app: typer.Typer, list_: Callable[[str, bool], None]) -> None:
    """Let a group of commands list when none of them is named: its `list`, with its options."""

    @app.callback()
    def group(
        context: typer.Context,
        name: Annotated[
            str | None,
            typer.Option("--environment", "-e", help="As for `list`, which is the default"),
        ] = None,
        as_json_: Json = False,
    ) -> None:
        if context.invoked_subcommand is not None:
            if name is not None or as_json_:
                raise typer.BadParameter(f"write options after {context.invoked_subcommand}")
            return
        if name is None:
            raise typer.BadParameter("name one", param_hint="--environment")
        list_(name, as_json_)
