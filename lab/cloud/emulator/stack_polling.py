"""Lets who polls a stack see its operation end when it ends.

The CDK command line asks DescribeStacks every five seconds, with no setting for it: three stacks
that take a second each would take fifteen. So an answer about a stack that is being worked on is
held back until the work is done, for as long as an HTTP client can be expected to wait.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from lab.cloud.emulator.upstream import Response, cloudformation, cloudformation_handlers, wrap

MAX_HOLD_SECONDS = 20.0


def install() -> None:
    wrap(vars(cloudformation), "handle_request", handle_request)


async def handle_request(
    original: Callable[..., Awaitable[Response]],
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    query_parameters: dict[str, Any],
) -> Response:
    request = parse_qs(body.decode(errors="replace"))
    if request.get("Action") == ["DescribeStacks"] and "StackName" in request:
        deadline = time.monotonic() + MAX_HOLD_SECONDS
        while _is_in_progress(request["StackName"][0]) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
    return await original(method, path, headers, body, query_parameters)


def _is_in_progress(stack_name: str) -> bool:
    stack = cloudformation_handlers._resolve_stack(stack_name) or {}
    status = str(stack.get("StackStatus", ""))
    return status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS"
