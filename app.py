"""Every environment's file becomes a CDK stage: `cdk deploy 'prod/*'`.

With `--context environment=NAME` that file alone is read: faster, and an environment can be
deployed while another one's file is being edited.
"""

import sys
from pathlib import Path

import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from stacks.environment import InvalidEnvironment, load
from stacks.postern_stage import PosternStage

ENVIRONMENTS = Path("environments")


def main() -> None:
    # Without the CDK's own template validation, which takes longer than everything else together:
    # the tests run cfn-lint.
    app = cdk.App(analytics_reporting=False, builtin_cloud_formation_validation=False)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app, verbose=True))
    chosen = app.node.try_get_context("environment")
    files = [ENVIRONMENTS / f"{chosen}.toml"] if chosen else sorted(ENVIRONMENTS.glob("*.toml"))
    try:
        for file in files:
            PosternStage(app, load(file))
    except InvalidEnvironment as error:
        sys.exit(str(error))
    app.synth()


if __name__ == "__main__":
    main()
