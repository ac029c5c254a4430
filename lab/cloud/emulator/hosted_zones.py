"""Hosted zones with the id that an environment's file names.

Route 53 chooses a zone's id itself. In the lab, a CreateHostedZone request whose caller reference
has the form of a zone id (``Z0LABEXAMPLECOM``) gets that id.

Its name servers are told without a trailing dot, which ministack 1.5.33 gives them.
"""

import re
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from xml.etree.ElementTree import Element

from lab.cloud.emulator.upstream import route53, wrap

_chosen_id: ContextVar[str | None] = ContextVar("chosen_id", default=None)


def install() -> None:
    wrap(vars(route53), "_create_hosted_zone", create_hosted_zone)
    wrap(vars(route53), "_build_delegation_set_el", _delegation_set)
    wrap(vars(route53), "_zone_id", lambda original: _chosen_id.get() or original())


def create_hosted_zone(original, body: bytes, query_parameters):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    reference = re.search(rb"<CallerReference>(Z[A-Z0-9]{5,31})</CallerReference>", body)
    token = _chosen_id.set(reference[1].decode() if reference else None)
    try:
        return original(body, query_parameters)
    finally:
        _chosen_id.reset(token)


def _delegation_set(original: Callable[..., None], parent: Element, *arguments: Any) -> None:
    original(parent, *arguments)
    for server in parent.iter("NameServer"):
        server.text = str(server.text).rstrip(".")
