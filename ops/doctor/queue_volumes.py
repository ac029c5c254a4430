"""Queue volumes that no host has, and what may be on them."""

from __future__ import annotations

from collections.abc import Iterator

from ops import zones
from ops.doctor.facts import Facts
from ops.verdicts import Finding


def check_queue_volumes(facts: Facts) -> Iterator[Finding]:
    """No volume was left behind with mail that nobody sends."""
    yield from zones.left_over_findings(facts.deployment)
