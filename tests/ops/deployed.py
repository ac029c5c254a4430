"""A deployed environment as AWS would tell it, without AWS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ops.deployment import Deployment, MailHost, NotDeployed, Resource, Stack
from stacks.environment import load

EXAMPLE = Path(__file__).parents[2] / "environments" / "example.toml"
LONG_AGO = datetime(2026, 1, 2, tzinfo=UTC)


def write_environment(folder: Path, *replacements: tuple[str, str], name: str = "prod") -> Path:
    """example.toml with passages replaced: pairs of (what stands there once, what shall)."""
    text = EXAMPLE.read_text(encoding="utf-8")
    for old, new in replacements:
        assert text.count(old) == 1, f"example.toml does not have this once: {old}"
        text = text.replace(old, new)
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def resource(
    resource_type: str, physical_id: str, *, logical_id: str = "", changed: datetime = LONG_AGO
) -> Resource:
    return Resource(
        logical_id=logical_id or physical_id,
        physical_id=physical_id,
        resource_type=resource_type,
        changed=changed,
    )


class Deployed(Deployment):
    """Stacks, hosts and answers that a test gives; a call without an answer is a test's mistake.

    answers: by "service.method", what it returns, or a function of its arguments that does.
    calls: what was called, in order, as ("service.method", arguments).
    """

    def __init__(
        self,
        file: Path,
        *,
        stacks: Mapping[str, Stack] | None = None,
        hosts: Sequence[MailHost] = (),
        answers: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(load(file))
        self.answers = dict(answers or {})
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._given = dict(stacks or {})
        self._hosts = list(hosts)

    def stack(self, stack: str) -> Stack:
        if stack not in self._given:
            raise NotDeployed(f"There is no stack {self.stack_name(stack)}.")
        return self._given[stack]

    def hosts(self) -> list[MailHost]:
        return self._hosts

    def call(self, service: str, method: str, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._answer(f"{service}.{method}", arguments)
        return answer

    def pages(self, service: str, method: str, key: str, **arguments: Any) -> list[Any]:
        answer: list[Any] = self._answer(f"{service}.{method}", arguments)[key]
        return answer

    def _answer(self, name: str, arguments: dict[str, Any]) -> Any:
        self.calls.append((name, arguments))
        answer: Callable[..., Any] | Any = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer(**arguments) if callable(answer) else answer
