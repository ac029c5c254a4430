"""One resource of a running stack operation: its definition, its status, its events."""

from dataclasses import dataclass
from typing import Any

from lab.cloud.emulator.upstream import cloudformation, provisioners, stacks


@dataclass(frozen=True, kw_only=True)
class StackResource:
    stack_name: str
    logical_id: str
    resource_type: str
    physical_id: str = ""

    @property
    def stack(self) -> dict[str, Any]:
        record: dict[str, Any] = cloudformation._stacks[self.stack_name]
        return record

    @property
    def stack_id(self) -> str:
        return str(self.stack["StackId"])

    def definition(self) -> dict[str, Any]:
        """The resource in the template that is being deployed, with its policies."""
        found: dict[str, Any] = provisioners._cfn_wait_condition_definition(
            self.stack_name, self.logical_id
        )
        return found

    def event(self, status: str, reason: str) -> None:
        stacks._add_event(
            self.stack_id,
            self.stack_name,
            self.logical_id,
            self.resource_type,
            status,
            reason,
            self.physical_id,
        )
