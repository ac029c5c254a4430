"""AWS::EC2::FlowLog, which ministack 1.5.33 has as EC2 actions only."""

from lab.cloud.emulator.upstream import (
    RESOURCE_TYPES,
    Properties,
    Resource,
    ec2,
    ec2_request,
    element_text,
    provisioners,
    refuse_unknown_properties,
)

_TYPE = "AWS::EC2::FlowLog"
_PROPERTIES = {
    "DeliverLogsPermissionArn",
    "LogDestination",
    "LogDestinationType",
    "LogGroupName",
    "MaxAggregationInterval",
    "ResourceId",
    "ResourceType",
    "Tags",
    "TrafficType",
}


def install() -> None:
    RESOURCE_TYPES[_TYPE] = {"create": _create, "update": _update, "delete": _delete}
    provisioners._STACK_TAG_PROPERTY[_TYPE] = ("Tags", "list")


def _create(_logical_id: str, properties: Properties, _stack_name: str) -> Resource:
    refuse_unknown_properties(_TYPE, properties, _PROPERTIES)
    answer = ec2_request(
        "CreateFlowLogs",
        ResourceId__1=properties["ResourceId"],
        ResourceType=properties["ResourceType"],
        TrafficType=properties.get("TrafficType"),
        LogDestinationType=properties.get("LogDestinationType"),
        LogDestination=properties.get("LogDestination"),
        LogGroupName=properties.get("LogGroupName"),
    )
    flow_log_id = element_text(answer, "item")
    provisioners._ec2_apply_tags(flow_log_id, properties)
    return flow_log_id, {"Id": flow_log_id}


def _update(physical_id: str, old: Properties, new: Properties, stack_name: str) -> Resource:
    if any(old.get(name) != new.get(name) for name in _PROPERTIES - {"Tags"}):
        return _create("", new, stack_name)  # a replacement: the old one goes in the cleanup
    provisioners._ec2_apply_tags(physical_id, new, old)
    return physical_id, {"Id": physical_id}


def _delete(physical_id: str, _properties: Properties) -> None:
    if physical_id in ec2._flow_logs:
        ec2_request("DeleteFlowLogs", FlowLogId__1=physical_id)
