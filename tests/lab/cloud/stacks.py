"""Small stacks for the tests of the emulated AWS."""

import base64
import json
from typing import Any

from lab.cloud.cloud import Cloud
from tests.lab.waiting import eventually

Template = dict[str, Any]


def network(**resources: Template) -> Template:
    """A VPC with one private subnet in us-east-1b, and the resources given."""
    return {
        "Resources": {
            "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.9.0.0/24"}},
            "Subnet": {
                "Type": "AWS::EC2::Subnet",
                "Properties": {
                    "VpcId": {"Ref": "Vpc"},
                    "CidrBlock": "10.9.0.64/28",
                    "AvailabilityZone": "us-east-1b",
                },
            },
            **resources,
        }
    }


def mail_host_group(*, user_data: str, timeout: str = "PT1M") -> Template:
    """A launch template and an Auto Scaling group of one that waits for its signal."""
    return network(
        Template={
            "Type": "AWS::EC2::LaunchTemplate",
            "Properties": {
                "LaunchTemplateData": {
                    "ImageId": "{{resolve:ssm:/aws/service/debian/release/13/latest/amd64}}",
                    "InstanceType": "t3.small",
                    "UserData": base64.b64encode(user_data.encode()).decode(),
                    "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
                    "BlockDeviceMappings": [
                        {
                            "DeviceName": "/dev/xvda",
                            "Ebs": {"VolumeSize": 10, "VolumeType": "gp3", "Encrypted": True},
                        }
                    ],
                }
            },
        },
        Group={
            "Type": "AWS::AutoScaling::AutoScalingGroup",
            "CreationPolicy": {"ResourceSignal": {"Count": 1, "Timeout": timeout}},
            "UpdatePolicy": {
                "AutoScalingRollingUpdate": {
                    "MinInstancesInService": 0,
                    "WaitOnResourceSignals": True,
                    "PauseTime": timeout,
                }
            },
            "Properties": {
                "MinSize": "1",
                "MaxSize": "1",
                "VPCZoneIdentifier": [{"Ref": "Subnet"}],
                "LaunchTemplate": {
                    "LaunchTemplateId": {"Ref": "Template"},
                    "Version": {"Fn::GetAtt": ["Template", "LatestVersionNumber"]},
                },
                "Tags": [{"Key": "Name", "Value": "mail", "PropagateAtLaunch": True}],
            },
        },
    )


class Stack:
    """A stack of the emulated AWS, and the instances of its Auto Scaling group."""

    def __init__(self, cloud: Cloud, name: str) -> None:
        self.cloud = cloud
        self.name = name
        self.cloudformation = cloud.client("cloudformation")
        self.ec2 = cloud.client("ec2")
        self.id = ""

    def create(self, template: Template) -> None:
        answer = self.cloudformation.create_stack(
            StackName=self.name,
            TemplateBody=json.dumps(template),
            Tags=[{"Key": "project", "Value": "postern"}],
        )
        self.id = answer["StackId"]

    def update(self, template: Template) -> None:
        self.cloudformation.update_stack(
            StackName=self.name,
            TemplateBody=json.dumps(template),
            Tags=[{"Key": "project", "Value": "postern"}],
        )

    def delete(self) -> str:
        self.cloudformation.delete_stack(StackName=self.name)
        return self.outcome()

    def outcome(self) -> str:
        """The stack's status once its operation has ended."""
        stacks = self.cloudformation.describe_stacks(StackName=self.id)["Stacks"]
        status = str(stacks[0]["StackStatus"])
        assert not status.endswith("_IN_PROGRESS"), status
        return status

    def reasons(self) -> list[str]:
        """Every reason in the stack's events, oldest first."""
        return [event.reason for event in self.cloud.stack_events(self.id) if event.reason]

    def physical_id(self, logical_id: str) -> str:
        resource = self.cloudformation.describe_stack_resource(
            StackName=self.name, LogicalResourceId=logical_id
        )
        return str(resource["StackResourceDetail"]["PhysicalResourceId"])

    def instances(self) -> list[dict[str, Any]]:
        """The instances of this stack's group that run."""
        reservations = self.ec2.describe_instances(
            Filters=[
                {"Name": "tag:aws:cloudformation:stack-name", "Values": [self.name]},
                {"Name": "instance-state-name", "Values": ["running"]},
            ]
        )["Reservations"]
        return [instance for item in reservations for instance in item["Instances"]]

    def new_instance(self, *, besides: str = "") -> dict[str, Any]:
        """The group's instance, once one runs that is not ``besides``."""
        return eventually(
            lambda: [item for item in self.instances() if item["InstanceId"] != besides]
        )[0]

    def user_data(self, instance: dict[str, Any]) -> str:
        attribute = self.ec2.describe_instance_attribute(
            InstanceId=instance["InstanceId"], Attribute="userData"
        )
        return base64.b64decode(attribute["UserData"]["Value"]).decode()

    def signal(self, unique_id: str, status: str = "SUCCESS") -> None:
        self.cloudformation.signal_resource(
            StackName=self.name, LogicalResourceId="Group", UniqueId=unique_id, Status=status
        )
