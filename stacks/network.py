"""The network: a way out through an address of our own, and no way in."""

import ipaddress
from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.encrypted_log_group import EncryptedLogGroup
from stacks.environment import MOST_ZONES, Environment
from stacks.sending_address import SendingAddress


class Network(cdk.Stack):
    """A VPC: in each zone a public subnet with a NAT gateway, and a private one for the mail host.

    vpc. private_subnets, nat_gateway_ids: by availability zone.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Environment,
        addresses: Mapping[str, SendingAddress],
    ) -> None:
        super().__init__(
            scope, construct_id, description=f"VPC and NAT gateways of {settings.sending_domain}"
        )
        self._zones = list(settings.availability_zones)
        # Sixteen equal subnets, of which a zone takes two. Room is reserved for every zone that
        # could be added, so that adding one leaves the others' subnets, and hosts, where they are.
        subnet_prefix = ipaddress.IPv4Network(settings.network.vpc_cidr).prefixlen + 4
        # The gateway in the n-th zone gets the n-th address. Not a regional NAT gateway: AWS would
        # choose its addresses, and SPF and reverse DNS would not know them.
        nat_gateways = ec2.NatProvider.gateway(
            eip_allocation_ids=[addresses[zone].exported_allocation_id for zone in self._zones]
        )
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(settings.network.vpc_cidr),
            availability_zones=self._zones,
            reserved_azs=MOST_ZONES - len(self._zones),
            nat_gateways=len(self._zones),
            nat_gateway_provider=nat_gateways,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="public",
                    subnet_type=ec2.SubnetType.PUBLIC,
                    cidr_mask=subnet_prefix,
                    map_public_ip_on_launch=False,
                ),
                ec2.SubnetConfiguration(
                    name="private",
                    subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS,
                    cidr_mask=subnet_prefix,
                ),
            ],
            # The CDK would empty the default security group by a Lambda function that may change
            # security groups. Nothing uses that group, and it admits nobody but its own members.
            restrict_default_security_group=False,
        )
        flow_log_group = EncryptedLogGroup(
            self,
            "FlowLogGroup",
            name=f"/postern/{settings.name}/flow",
            retention=logs.RetentionDays.ONE_MONTH,
        )
        self.vpc.add_flow_log(
            "FlowLog",
            destination=ec2.FlowLogDestination.to_cloud_watch_logs(
                flow_log_group.log_group, self._flow_log_role()
            ),
        )
        # The agents' packages come from S3: through here they cost no NAT traffic. Without a policy
        # of its own, since the application may have buckets; the roles' policies decide.
        self.vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)

        self.private_subnets = dict(zip(self._zones, self.vpc.private_subnets, strict=True))
        self.nat_gateway_ids = {
            gateway.az: gateway.gateway_id for gateway in nat_gateways.configured_gateways
        }

    def _flow_log_role(self) -> iam.Role:
        """Not the CDK's own, which the service could assume for another account's flow log.

        https://docs.aws.amazon.com/vpc/latest/userguide/flow-logs-iam-role.html
        """
        flow_logs = self.format_arn(service="ec2", resource="vpc-flow-log", resource_name="*")
        return iam.Role(
            self,
            "FlowLogRole",
            assumed_by=iam.ServicePrincipal(
                "vpc-flow-logs.amazonaws.com",
                conditions={
                    "StringEquals": {"aws:SourceAccount": self.account},
                    "ArnLike": {"aws:SourceArn": flow_logs},
                },
            ),
        )

    @property
    def availability_zones(self) -> list[str]:
        """The environment's zones; the CDK would look the account's up while synthesising."""
        return self._zones
