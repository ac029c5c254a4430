"""The Lambda function behind a custom resource."""

from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

CODE = Path(__file__).parent / "custom_resources"


class CustomResourceFunction(Construct):
    """Runs `handlers.<module>.handler`; it may write its log and whatever `role` is granted.

    log_group: where it logs; functions may share one.
    service_token: what a custom resource names it by.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        module: str,
        description: str,
        timeout: cdk.Duration,
        log_group: logs.ILogGroup,
    ) -> None:
        super().__init__(scope, construct_id)
        self.role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        # Not the managed AWSLambdaBasicExecutionRole, which may write to every log group.
        log_group.grant_write(self.role)
        function = lambda_.Function(
            self,
            "Function",
            description=description,
            runtime=lambda_.Runtime.PYTHON_3_14,
            architecture=lambda_.Architecture.ARM_64,
            # The same folder for every function: the handlers share the protocol's module.
            code=lambda_.Code.from_asset(str(CODE), exclude=["**/__pycache__", "**/*.pyc"]),
            handler=f"handlers.{module}.handler",
            timeout=timeout,
            role=self.role,
            log_group=log_group,
        )
        self.service_token = function.function_arn
