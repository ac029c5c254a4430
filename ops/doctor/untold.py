"""A finding for what could not be told."""

from __future__ import annotations

from collections.abc import Callable

from ops.deployment import CannotTell
from ops.verdicts import Finding, Verdict


def untold(check: str, evidence: str) -> Finding:
    """That `check` has no answer; `evidence` says why, and mostly what to do."""
    return Finding(
        check=check,
        verdict=Verdict.UNKNOWN,
        evidence=evidence,
        remedy="Do what this says, or run the command again; docs/operations.md lists what an "
        "operator must be allowed to ask.",
    )


def told(check: str, look: Callable[[str], Finding]) -> Finding:
    """What `look` finds under the name `check`, or that it could not tell.

    For one of many, so that its failure leaves the others theirs.
    """
    try:
        return look(check)
    except CannotTell as failure:
        return untold(check, str(failure))
