"""What the review says of a change: a folder for each in cases/, with the edit and the report.

case.toml has the verdict and the edits: of environments/example.toml, whose stacks are then made
anew, or of a reviewed file where no setting could make the change. expected.md is the comment that
a pull request gets; POSTERN_WRITE_EXPECTED=1 writes it anew, to be read before it is committed.
"""

import functools
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

from review import acknowledged, engine, report
from review.examine import Review, examine, templates_changed
from review.snapshots import FOLDER, HOST_FILES, Files, of_assembly, read
from stacks.environment import load
from stacks.postern_stage import PosternStage
from tests.stacks.conftest import ROOT

CASES = Path(__file__).parent / "cases"
NAMES = sorted(path.parent.name for path in CASES.glob("*/case.toml"))
SETTINGS = "environments/example.toml"
Case = Mapping[str, Any]
ReviewOf = Callable[[str], Review]


def case_of(name: str) -> Case:
    return tomllib.loads((CASES / name / "case.toml").read_text("utf-8"))


@functools.cache
def synthesised(settings: str) -> Files:
    """What the app makes of example.toml with this text, without cdk-nag's opinion of it."""
    with tempfile.TemporaryDirectory() as name:
        return synthesised_in(Path(name), settings)


def synthesised_in(folder: Path, settings: str) -> Files:
    file = folder / "example.toml"
    file.write_text(settings, encoding="utf-8")
    app = cdk.App(
        analytics_reporting=False,
        builtin_cloud_formation_validation=False,
        context=json.loads((ROOT / "cdk.json").read_text("utf-8"))["context"],
        outdir=str(folder / "cdk.out"),
    )
    PosternStage(app, load(file))
    app.synth()
    return of_assembly(folder / "cdk.out")


def edited(case: Case, base: Files) -> Files:
    files = {**base, SETTINGS: (ROOT / SETTINGS).read_text("utf-8")}
    before = files[SETTINGS]
    for edit in case.get("edit", []):
        assert edit["old"] in files[edit["file"]], f"{edit['file']} has no {edit['old']}"
        files[edit["file"]] = files[edit["file"]].replace(edit["old"], edit["new"])
    settings = files.pop(SETTINGS)
    return files if settings == before else {**files, **synthesised(settings)}


def entries(case: Case, key: str) -> list[acknowledged.Entry]:
    return [acknowledged.Entry.model_validate(entry) for entry in case.get(key, [])]


@pytest.fixture(scope="module")
def review_of() -> ReviewOf:
    """The review of that case; the diff engine is started once, for all of them."""
    example = {
        file: text
        for file, text in read(ROOT / FOLDER).items()
        if file.startswith("example/") or file == HOST_FILES
    }
    sides: dict[str, tuple[Files, Files]] = {}
    for name in NAMES:
        case = case_of(name)
        base = {case["only"]: example[case["only"]]} if "only" in case else example
        changed = edited(case, base)
        lacks = case.get("lacks")
        sides[name] = ({} if lacks == "base" else base, {} if lacks == "current" else changed)
    answers = engine.compare(
        {
            f"{name}:{stack}": pair
            for name, (base, current) in sides.items()
            for stack, pair in templates_changed(base, current).items()
        }
    )

    @functools.cache
    def reviewed(name: str) -> Review:
        case = case_of(name)
        return examine(
            *sides[name],
            entries=entries(case, "acknowledged"),
            spent=entries(case, "acknowledged_before"),
            compare=lambda pairs: {stack: answers[f"{name}:{stack}"] for stack in pairs},
        )

    return reviewed


@pytest.mark.parametrize("name", NAMES)
def test_the_verdict_and_the_report(review_of: ReviewOf, name: str) -> None:
    review = review_of(name)
    assert review.verdict == case_of(name)["verdict"]
    text = report.as_markdown(report.document(review, "HEAD"))
    text = re.sub(r"[0-9a-f]{16}\.zip", "(hash).zip", text)  # changes with any of the handlers
    expected = CASES / name / "expected.md"
    if os.environ.get("POSTERN_WRITE_EXPECTED"):
        expected.write_text(text, encoding="utf-8")
    told = "read what is new; POSTERN_WRITE_EXPECTED=1 pytest tests/review writes it"
    assert text == expected.read_text("utf-8"), told
