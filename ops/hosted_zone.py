"""What Route 53 holds of a name, which is not always what the world is told of it."""

from __future__ import annotations

from typing import Any

from ops.deployment import Deployment


def record_set(deployment: Deployment, name: str, record_type: str) -> dict[str, Any]:
    """The hosted zone's record set of this name and type, as Route 53 gives it; {} for none.

    Raises:
        CannotTell: Route 53 could not be asked.
    """
    # One by one, since a zone may have ten thousand others: it lists from this name on.
    answer = deployment.call(
        "route53",
        "list_resource_record_sets",
        HostedZoneId=deployment.settings.hosted_zone.id,
        StartRecordName=name,
        StartRecordType=record_type,
        MaxItems="1",
    )
    for found in answer["ResourceRecordSets"]:
        if (found["Name"].rstrip("."), found["Type"]) == (name, record_type):
            return dict(found)
    return {}


def txt_values(deployment: Deployment, name: str) -> list[str]:
    """The values of its TXT record, in zone-file text; raises CannotTell."""
    found = record_set(deployment, name, "TXT")
    return [value["Value"] for value in found.get("ResourceRecords", [])]
