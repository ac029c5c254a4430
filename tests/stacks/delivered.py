"""How these tests synthesise the pipeline, and what they look into its template with."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aws_cdk as cdk
from aws_cdk.assertions import Template

from review.snapshots import joined
from stacks.delivery import Delivered, Delivery, gate_role_arn, in_order
from stacks.delivery_settings import DeliverySettings
from stacks.environment import Environment
from stacks.postern_stage import PosternStage
from tests.stacks.conftest import Assembly, app_in, resources


def synthesise_delivery(
    settings: DeliverySettings, environments: Sequence[Environment], outdir: Path
) -> Assembly:
    """The pipeline's stacks and the environments', as app.py makes them.

    templates: by stack: "Delivery", "eu-west-1" (its support stack there), "prod/DoctorAccess" ...
    """
    app = app_in(outdir)
    gate = gate_role_arn(settings)
    delivered = [
        Delivered(settings=e, stage=PosternStage(app, e, gate_role_arn=gate))
        for e in in_order(environments)
    ]
    delivery = Delivery(app, "Delivery", settings=settings, delivered=delivered)
    app.synth()
    templates: dict[str, cdk.Stack] = {"Delivery": delivery}
    for child in app.node.children:
        if isinstance(child, cdk.Stack) and child is not delivery:
            templates[child.region] = child
    for environment in delivered:
        for child in environment.stage.node.children:
            if isinstance(child, cdk.Stack):
                templates[f"{environment.settings.name}/{child.node.id}"] = child
    return Assembly(
        {name: dict(Template.from_stack(stack).to_json()) for name, stack in templates.items()},
        outdir,
    )


class Action(NamedTuple):
    """An action of a pipeline's stage, in the order of `run_order`."""

    name: str
    run_order: int
    region: str
    role: str
    provider: str
    configuration: Mapping[str, Any]


def stages(delivery: Mapping[str, Any]) -> dict[str, list[Action]]:
    """The pipeline's stages in their order; a role is shown as `joined` shows it."""
    (pipeline,) = resources(delivery, "AWS::CodePipeline::Pipeline").values()
    return {
        stage["Name"]: [
            Action(
                name=action["Name"],
                run_order=action["RunOrder"],
                region=action.get("Region", ""),
                role=joined(action["RoleArn"]),
                provider=action["ActionTypeId"]["Provider"],
                configuration=action["Configuration"],
            )
            for action in stage["Actions"]
        ]
        for stage in pipeline["Properties"]["Stages"]
    }


def build_spec(delivery: Mapping[str, Any], folder: Path, action: Action) -> dict[str, Any]:
    """What the CodeBuild project of this action does; `folder` is the assembly's."""
    project = delivery["Resources"][action.configuration["ProjectName"]["Ref"]]
    text = joined(project["Properties"]["Source"]["BuildSpec"])
    if text.endswith(".yaml"):  # JSON all the same
        text = (folder / text).read_text(encoding="utf-8")
    spec: dict[str, Any] = json.loads(text)
    return spec


def commands(spec: Mapping[str, Any]) -> list[str]:
    """Every command of a build, in its order."""
    phases = ("install", "pre_build", "build", "post_build")
    return [
        command for phase in phases for command in spec["phases"].get(phase, {}).get("commands", [])
    ]
