"""Samples as a bench takes them, for tests of what is read from them."""

from typing import Any

from bench.measure import Sample
from bench.queues import QueueSample


def sample(contender: str = "postern", *, rate: float = 100, **changes: Any) -> Sample:
    """A stream of 1,000 messages, exact, delivered at this many a second, unless changed."""
    fields: dict[str, Any] = {
        "contender": contender,
        "messages": 1000,
        "accepted": 1000,
        "delivered": 1000,
        "doubled": 0,
        "strangers": 0,
        "verified": 20,
        "unverified": 0,
        "seconds": 1000 / rate,
        "accepted_seconds": 5.0,
        "connections": 1000,
        "refusals": 0,
        "unanswered": 0,
        "cpu": {
            "mta": 6.0,
            "signer": 2.0,
            "rest": 1.0,
            "source": 1.0,
            "sink": 0.5,
            "machine": 12.0,
        },
    }
    return Sample(**{**fields, **changes})


def queue_sample(
    contender: str = "postern", *, messages: int = 1000, **changes: Any
) -> QueueSample:
    """A queue that drained at 100 messages a second, unless changed."""
    fields: dict[str, Any] = {
        "contender": contender,
        "messages": messages,
        "idle_cpu": {"mta": 0.25, "signer": 0.0, "rest": 0.05},
        "delivered": messages,
        "doubled": 0,
        "drain_seconds": messages / 100,
    }
    return QueueSample(**{**fields, **changes})
