"""Public certificates that can be exported, which ministack 1.5.33 does not know.

The certificate and its key are the lab's authority's, asked for over the control socket when a host
exports them: so each export is a renewal. That a name is its owner's is not looked up; what
CloudFormation would wait for in vain is refused instead: a name whose record it cannot write.
"""

import base64
import json
import os
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from lab.cloud.emulator.upstream import (
    RESOURCE_TYPES,
    Properties,
    Resource,
    Response,
    concurrency,
    responses,
    wrap,
)
from lab.control import ask

_TYPE = "AWS::CertificateManager::Certificate"
# https://docs.aws.amazon.com/acm/latest/APIReference/API_ExportCertificate.html
SHORTEST_PASSPHRASE = 4

acm: Any = import_module("ministack.services.acm")
serialization: Any = import_module("cryptography.hazmat.primitives.serialization")


def install() -> None:
    wrap(RESOURCE_TYPES[_TYPE], "create", _create)
    wrap(vars(acm), "handle_request", _handle_request)


def _create(
    original: Callable[..., Resource], logical_id: str, properties: Properties, stack_name: str
) -> Resource:
    validated = {
        option["DomainName"]
        for option in properties.get("DomainValidationOptions", [])
        if option.get("HostedZoneId")
    }
    if properties["DomainName"] not in validated:
        raise ValueError(f"Nobody would prove to own {properties['DomainName']}.")
    arn, attributes = original(logical_id, properties, stack_name)
    acm._certificates[arn]["Options"]["Export"] = properties.get("CertificateExport", "DISABLED")
    return arn, attributes


async def _handle_request(
    original: Callable[..., Awaitable[Response]],
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    query_parameters: dict[str, Any],
) -> Response:
    if headers.get("x-amz-target", "").rpartition(".")[2] != "ExportCertificate":
        return await original(method, path, headers, body, query_parameters)
    request = json.loads(body)
    certificate = acm._get_local_certificate(request["CertificateArn"])
    if certificate is None:
        not_found: Response = acm._certificate_not_found(request["CertificateArn"])
        return not_found
    passphrase = base64.b64decode(request["Passphrase"])
    if certificate["Options"].get("Export") != "ENABLED" or len(passphrase) < SHORTEST_PASSPHRASE:
        refusal: Response = responses.error_response_json(
            "ValidationException", "This certificate cannot be exported.", 400
        )
        return refusal
    issued = await concurrency.run_offloop(lambda: _issue(certificate["DomainName"]))
    key = serialization.load_pem_private_key(issued["key"].encode(), password=None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase),
    )
    answer: Response = responses.json_response(
        {
            "Certificate": issued["certificate"],
            "CertificateChain": issued["chain"],
            "PrivateKey": encrypted.decode(),
        }
    )
    return answer


def _issue(name: str) -> dict[str, str]:
    issued: dict[str, str] = ask(
        Path(os.environ["POSTERN_CONTROL_SOCKET"]), "issue_certificate", name=name
    )
    return issued
