"""The parts of ministack that the emulator extends, in one place.

Most are private to ministack, so they are held by the exact pin of version 1.5.33 in
``lab/cloud/requirements.txt``: on an upgrade, start with this file and its tests.

Modules are loaded by name because ministack lives in a virtual environment of its own and carries
no types; the project's type checker sees them as ``Any``.
"""

import functools
import re
from collections.abc import Callable, Collection, Mapping, MutableMapping
from importlib import import_module
from typing import Any

app: Any = import_module("ministack.app")
auto_scaling: Any = import_module("ministack.services.autoscaling")
cloudwatch: Any = import_module("ministack.services.cloudwatch")
concurrency: Any = import_module("ministack.core.concurrency")
ec2: Any = import_module("ministack.services.ec2")
iam_actions: Any = import_module("ministack.core.iam_actions")
iam_evaluator: Any = import_module("ministack.core.iam_evaluator")
provisioners: Any = import_module("ministack.services.cloudformation.provisioners")
responses: Any = import_module("ministack.core.responses")
route53: Any = import_module("ministack.services.route53")
router: Any = import_module("ministack.core.router")
secrets_manager: Any = import_module("ministack.services.secretsmanager")
ssm: Any = import_module("ministack.services.ssm")
cloudformation: Any = import_module("ministack.services.cloudformation")
cloudformation_handlers: Any = import_module("ministack.services.cloudformation.handlers")
tagging: Any = import_module("ministack.services.tagging")
stacks: Any = import_module("ministack.services.cloudformation.stacks")
wait_conditions: Any = import_module("ministack.services.cloudformation.wait_conditions")

Parameters = Mapping[str, Any]
"""A query API's request parameters as ministack passes them: name to a list of values."""

Response = tuple[int, dict[str, str], bytes]
"""HTTP status, headers, body."""

Properties = dict[str, Any]
"""A CloudFormation resource's properties, every intrinsic function resolved."""

Resource = tuple[str, dict[str, str]]
"""A CloudFormation resource's physical id and attributes."""

Handler = Callable[[Parameters], Response]

EC2_ACTIONS: dict[str, Handler] = ec2._ACTION_MAP
RESOURCE_TYPES: dict[str, dict[str, Any]] = provisioners._RESOURCE_HANDLERS


class ApiError(ValueError):
    """An AWS API refused a request; the text is AWS's own message."""


def wrap(table: MutableMapping[str, Any], name: str, replacement: Callable[..., Any]) -> None:
    """Make ``table[name]`` call ``replacement(original, *arguments)``.

    ``table`` is a handler table or, to replace a module's own function, ``vars(module)``.
    """
    table[name] = functools.partial(replacement, table[name])


def ec2_request(action: str, **parameters: object) -> str:
    """The body of an EC2 API call made inside the emulator; raises ApiError.

    Double underscores in a parameter's name stand for dots: ``InstanceId__1`` is ``InstanceId.1``.
    Parameters that are None are left out.
    """
    status, _, body = EC2_ACTIONS[action](
        {
            name.replace("__", "."): [_query_value(value)]
            for name, value in parameters.items()
            if value is not None
        }
    )
    if status >= 400:
        raise ApiError(element_text(body.decode(), "Message"))
    return body.decode()


def ec2_answer(element: str, inner_xml: str) -> Response:
    """A successful EC2 response whose root element is ``element``."""
    answer: Response = ec2._xml(200, element, inner_xml)
    return answer


def ec2_error(code: str, message: str) -> Response:
    """An EC2 error response, HTTP status 400."""
    answer: Response = ec2._error(code, message, 400)
    return answer


def _query_value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def element_text(xml: str, name: str) -> str:
    """The text of the first element called ``name``, or an empty string."""
    match = re.search(rf"<{name}>\s*(.*?)\s*</{name}>", xml, re.DOTALL)
    return match[1] if match else ""


def parameter(parameters: Parameters, name: str) -> str:
    """A request parameter's first value, or an empty string."""
    return str(ec2._p(parameters, name))


def refuse_unknown_properties(
    resource_type: str, properties: Properties, known: Collection[str]
) -> None:
    """Raises ValueError when a template asks for something the lab does not emulate."""
    if unknown := sorted(set(properties) - set(known)):
        raise ValueError(f"The lab does not emulate {', '.join(unknown)} of {resource_type}.")
