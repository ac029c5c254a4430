"""The CDK's own diff engine (npm: @aws-cdk/cloudformation-diff), asked through engine.mjs."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ops.deployment import CannotTell

_SCRIPT: Final = Path(__file__).with_name("engine.mjs")

Template = Mapping[str, Any]
Changes = Mapping[str, Any]
"""What engine.mjs writes for a pair of templates."""


def compare(pairs: Mapping[str, tuple[Template, Template]]) -> Mapping[str, Changes]:
    """What changes between the two templates of each name; {} is a stack that is not there.

    Raises:
        CannotTell: the engine is not installed, or failed.
    """
    asked = {name: {"before": before, "after": after} for name, (before, after) in pairs.items()}
    try:
        answer = subprocess.run(
            ["node", str(_SCRIPT)],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError:
        raise CannotTell("There is no `node`: run `make review`, which installs it.") from None
    except subprocess.CalledProcessError as error:
        missing = "ERR_MODULE_NOT_FOUND" in error.stderr
        remedy = "run `make review`, which installs it" if missing else "its words"
        raise CannotTell(f"The CDK's diff engine failed; {remedy}:\n{error.stderr}") from None
    changes: Mapping[str, Changes] = json.loads(answer.stdout)
    return changes
