"""An export that another stack imports stays as it is, as CloudFormation has it.

ministack 1.5.33 refuses to delete a stack with such an export, and lets an update remove or change
one. Here the update fails, once its resources are updated, and goes back.

The words are AWS's, as found in public issue threads about such updates.
"""

from collections.abc import Callable
from typing import Any

from lab.cloud.emulator.upstream import cloudformation, cloudformation_handlers, stacks, wrap

Outputs = tuple[list[dict[str, Any]], dict[str, dict[str, str]]]


def install() -> None:
    wrap(vars(stacks), "_resolve_stack_outputs", _resolve_stack_outputs)


def _resolve_stack_outputs(original: Callable[..., Outputs], *arguments: Any) -> Outputs:
    stack_name = arguments[-2]
    outputs, exports = original(*arguments)
    stack = cloudformation._stacks.get(stack_name, {})
    for output in stack.get("Outputs", []):
        name = output.get("ExportName")
        new = exports.get(name, {}).get("Value")
        if not name or new == output["OutputValue"]:
            continue
        deed = "deleted" if new is None else "updated"
        if users := [other for other in _importers(name) if other != stack_name]:
            raise ValueError(
                f"Export {name} cannot be {deed} as it is in use by {' and '.join(users)}"
            )
    return outputs, exports


def _importers(export: str) -> list[str]:
    return [
        name
        for name, stack in cloudformation._stacks.items()
        if stack.get("StackStatus") != "DELETE_COMPLETE"
        and export in cloudformation_handlers._imported_export_names(stack, name)
    ]
