"""The programs that are measured side by side."""

from __future__ import annotations

from bench.contenders import exim, postern, postfix
from bench.host import Contender

NAMES = ("postern", "postfix", "postfix-tuned", "exim")


def make(name: str) -> Contender:
    """The contender of that name; making Postern's synthesises its environment."""
    match name:
        case "postern":
            return postern.contender()
        case "postfix" | "postfix-tuned":
            return postfix.contender(tuned=name == "postfix-tuned")
        case "exim":
            return exim.contender()
    raise LookupError(f"There is no contender {name}; there are {', '.join(NAMES)}.")
