"""Every environment's file becomes a CDK stage: `cdk deploy 'prod/*'`.

With `--context environment=NAME` only that file is read, which is faster and lets one environment be
deployed while another's file is being edited.
"""

import sys
from pathlib import Path

import aws_cdk as cdk

from stacks.environment import InvalidEnvironment, load
from stacks.postern_stage import PosternStage

ENVIRONMENTS = Path("environments")


def main() -> None:
    # No analytics and no built-in validation: synthesis stays offline, quick and the same everywhere.
    # The tests put every template through cdk-nag and cfn-lint instead.
    app = cdk.App(analytics_reporting=False, builtin_cloud_formation_validation=False)
    chosen = app.node.try_get_context("environment") or "*"
    files = sorted(ENVIRONMENTS.glob(f"{chosen}.toml")) or [ENVIRONMENTS / f"{chosen}.toml"]
    try:
        for file in files:
            PosternStage(app, load(file))
    except InvalidEnvironment as error:
        sys.exit(str(error))
    app.synth()


if __name__ == "__main__":
    main()
