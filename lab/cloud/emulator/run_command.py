"""Systems Manager's Run Command on the lab's machines.

ministack 1.5.33 runs the document AWS-RunShellScript in a Docker container of its own, has no time
limit, and says that any other document succeeded. The machines are the supervisor's: this asks it
over the control socket, whose two operations are ``answering_agents`` and ``run_script``.
"""

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from lab.cloud.agents import VERSION
from lab.cloud.emulator.upstream import Response, concurrency, ec2, responses, ssm, wrap
from lab.control import LabError, ask

CONTROL_SOCKET = Path(os.environ["POSTERN_CONTROL_SOCKET"])

DOCUMENT = "AWS-RunShellScript"
PARAMETERS = frozenset({"commands", "workingDirectory", "executionTimeout"})
DEFAULT_EXECUTION_SECONDS = 3600

STDOUT_CHARACTERS = 24_000
STDERR_CHARACTERS = 8_000
TRUNCATED = "--output truncated--"

# The agent's own name for a command that it killed, and its status then.
KILLED = 137

Request = dict[str, Any]

_answering: ContextVar[frozenset[str]] = ContextVar("answering", default=frozenset())
_last_ping: dict[str, float] = {}


def install() -> None:
    wrap(vars(ssm), "handle_request", _handle_request)
    wrap(vars(ssm), "_managed_instance_ids", lambda _: _managed_instance_ids())
    wrap(vars(ssm), "_send_command", send_command)
    # What ministack passes on to `_finish_invocation`.
    wrap(vars(ssm), "_shell_argv", lambda _, request: request)
    wrap(vars(ssm), "_finish_invocation", finish_invocation)
    wrap(vars(ssm), "_refresh_command_status", _refresh_command_status)
    wrap(vars(ssm), "_describe_instance_information", describe_instance_information)


async def _handle_request(
    original: Callable[..., Awaitable[Response]],
    method: str,
    path: str,
    headers: dict[str, str],
    *rest: Any,
) -> Response:
    """A request, with the machines asked beforehand: the event loop must not wait for them."""
    operation = headers.get("x-amz-target", "").rpartition(".")[2]
    if operation not in ("SendCommand", "DescribeInstanceInformation"):
        return await original(method, path, headers, *rest)
    token = _answering.set(await concurrency.run_offloop(_ask_for_agents))
    try:
        return await original(method, path, headers, *rest)
    finally:
        _answering.reset(token)


def _ask_for_agents() -> frozenset[str]:
    try:
        return frozenset(ask(CONTROL_SOCKET, "answering_agents"))
    except (LabError, OSError):  # an emulator without machines
        return frozenset()


def _managed_instance_ids() -> set[str]:
    """The request's account's running instances whose agent answers."""
    managed = {
        instance_id
        for instance_id in _answering.get()
        if ec2._instances.get(instance_id, {}).get("State", {}).get("Name") == "running"
    }
    _last_ping.update(dict.fromkeys(managed, time.time()))
    return managed


def send_command(original: Callable[[Request], Response], request: Request) -> Response:
    """SendCommand of the one document that the lab has."""
    document = request.get("DocumentName", "")
    if document.rpartition("/")[2] != DOCUMENT:
        return _error("InvalidDocument", f"Document with name {document} does not exist.")
    parameters = request.get("Parameters", {})
    if unknown := parameters.keys() - PARAMETERS:
        return _error(
            "InvalidParameters",
            f"document {DOCUMENT} has no parameter {', '.join(sorted(unknown))}",
        )
    if not parameters.get("commands"):
        return _error("InvalidParameters", f"document {DOCUMENT} must specify commands")
    if not _parameter(parameters, "executionTimeout", "1").isdigit():
        return _error("InvalidParameters", "executionTimeout is a number of seconds")
    return original(request | {"DocumentName": DOCUMENT})


def _parameter(parameters: Mapping[str, list[str]], name: str, default: str) -> str:
    return str((parameters.get(name) or [default])[0])


def finish_invocation(
    _original: object, command_id: str, instance_id: str, request: Request
) -> None:
    """Run a command on one machine and publish how it ended; on a thread of its own."""
    record = ssm._commands[command_id]
    invocation = record["Invocations"][instance_id]
    parameters = request["Parameters"]
    invocation.update(
        Status="InProgress", StatusDetails="InProgress", ExecutionStartDateTime=ssm._now_iso()
    )
    began = time.monotonic()
    try:
        ended = ask(
            CONTROL_SOCKET,
            "run_script",
            instance_id=instance_id,
            command_id=command_id,
            script="\n".join(parameters["commands"]) + "\n",
            working_directory=_parameter(parameters, "workingDirectory", "") or "/usr/bin",
            timeout_seconds=int(
                _parameter(parameters, "executionTimeout", str(DEFAULT_EXECUTION_SECONDS))
            ),
            characters=STDOUT_CHARACTERS + 1,
        )
    except (LabError, OSError):  # AWS hears no more of such a command, and gives it up
        ended = {"exit_status": -1, "stdout": "", "stderr": ""}
    status = _status(ended["exit_status"])
    stderr = ended["stderr"]
    if status == "Failed":  # the agent's own last line
        stderr = "\n".join(
            [*stderr.splitlines(), f"failed to run commands: exit status {ended['exit_status']}"]
        )
    invocation.update(
        ResponseCode=ended["exit_status"],
        StandardOutputContent=_cut(ended["stdout"], STDOUT_CHARACTERS),
        StandardErrorContent=_cut(stderr, STDERR_CHARACTERS),
        ExecutionEndDateTime=ssm._now_iso(),
        ExecutionElapsedTime=f"PT{time.monotonic() - began:.3f}S",
        StatusDetails="ExecutionTimedOut" if status == "TimedOut" else status,
    )
    invocation["Status"] = status  # last: whoever sees the end must see all of it
    ssm._refresh_command_status(record)


def _status(exit_status: int) -> str:
    if exit_status in (KILLED, -1):
        return "TimedOut"
    return "Failed" if exit_status else "Success"


def _cut(text: str, characters: int) -> str:
    if len(text) <= characters:
        return text
    return text[: characters - len(TRUNCATED)] + TRUNCATED


def _refresh_command_status(original: Callable[[Any], None], record: dict[str, Any]) -> None:
    """The command's state from its invocations'; ministack takes one that timed out for good."""
    original(record)
    statuses = [invocation["Status"] for invocation in record["Invocations"].values()]
    record["ErrorCount"] = statuses.count("Failed") + statuses.count("TimedOut")
    if record["Status"] == "Success" and "TimedOut" in statuses:
        record["Status"] = record["StatusDetails"] = "TimedOut"


def describe_instance_information(_original: object, request: Request) -> Response:
    """The instances that have, or once had, an agent that answers; one page."""
    wanted = {
        condition.get("Key", condition.get("key", "")): set(
            condition.get("Values", condition.get("valueSet", []))
        )
        for condition in [
            *request.get("Filters", []),
            *request.get("InstanceInformationFilterList", []),
        ]
    }
    if unknown := wanted.keys() - {"InstanceIds", "PingStatus"}:
        return _error("InvalidFilterKey", f"The lab knows no filter {', '.join(sorted(unknown))}.")
    managed = _managed_instance_ids()
    found = []
    for instance_id, instance in sorted(ec2._instances.items()):
        if instance_id not in _last_ping or instance["State"]["Name"] != "running":
            continue
        ping = "Online" if instance_id in managed else "ConnectionLost"
        if instance_id in wanted.get("InstanceIds", {instance_id}) and ping in wanted.get(
            "PingStatus", {ping}
        ):
            found.append(
                {
                    "InstanceId": instance_id,
                    "PingStatus": ping,
                    "LastPingDateTime": _last_ping[instance_id],
                    "AgentVersion": VERSION,
                    "IsLatestVersion": True,
                    "PlatformType": "Linux",
                    "PlatformName": "Debian GNU/Linux",
                    "PlatformVersion": "13",
                    "ResourceType": "EC2Instance",
                    "IPAddress": instance["PrivateIpAddress"],
                    "ComputerName": instance["PrivateDnsName"],
                }
            )
    answer: Response = responses.json_response({"InstanceInformationList": found})
    return answer


def _error(code: str, message: str) -> Response:
    answer: Response = responses.error_response_json(code, message, 400)
    return answer
