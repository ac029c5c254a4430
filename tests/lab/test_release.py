"""The previous release, which lab/releases keeps and test_upgrade.py updates from."""

import json
import re
from pathlib import Path

import pytest

from lab.control import LabError
from lab.release import RELEASES, keep, present_version, previous_release

# A folder in which no file of a deployment lies, on the host either.
_A_MACHINES_PATH = re.compile(rb'"/(?:home|root|tmp|Users|work|github|builds)/[^"]*"')


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def test_the_release_that_is_kept_is_older_than_what_is_here() -> None:
    assert numbers(previous_release().version) < numbers(present_version())


def test_every_file_that_its_deployment_reads_is_kept_with_it() -> None:
    assembly = previous_release().assembly
    read = 0
    for manifest in assembly.glob("**/manifest.json"):
        for artifact in json.loads(manifest.read_text())["artifacts"].values():
            properties = artifact["properties"]
            for key in ("directoryName", "file", "templateFile"):
                if key in properties:
                    assert (manifest.parent / properties[key]).exists()
                    read += 1
    for assets in assembly.glob("**/*.assets.json"):
        for asset in json.loads(assets.read_text())["files"].values():
            assert (assets.parent / asset["source"]["path"]).resolve().is_relative_to(assembly)
            assert (assets.parent / asset["source"]["path"]).exists()
            read += 1
    assert read > 10


def test_no_file_of_it_names_a_folder_of_the_machine_that_wrote_it() -> None:
    files = [file for file in RELEASES.rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert not _A_MACHINES_PATH.search(file.read_bytes()), file


@pytest.mark.parametrize(("versions", "told"), [((), "none"), (("1.0.0", "1.1.0"), "1.0.0, 1.1.0")])
def test_without_exactly_one_release_nothing_is_taken_for_the_previous_one(
    tmp_path: Path, versions: tuple[str, ...], told: str
) -> None:
    for version in versions:
        (tmp_path / version).mkdir()
        (tmp_path / version / "manifest.json").write_text("{}")

    with pytest.raises(LabError, match=f"holds {re.escape(told)}: `make release` writes it"):
        previous_release(tmp_path)


def test_a_release_takes_the_place_of_the_one_before_and_leaves_the_reports_out(
    tmp_path: Path,
) -> None:
    assembly, releases = tmp_path / "cdk.out", tmp_path / "releases"
    assembly.mkdir()
    stack = {
        "type": "aws:cloudformation:stack",
        "properties": {"templateFile": "A.template.json", "stackName": "a"},
        "additionalMetadataFile": "A.metadata.json",
    }
    artifacts = {"A": stack, "Tree": {"type": "cdk:tree", "properties": {"file": "tree.json"}}}
    (assembly / "manifest.json").write_text(json.dumps({"version": "1", "artifacts": artifacts}))
    (assembly / "A.template.json").write_text('{"Resources": {}}')
    for report in ("A.metadata.json", "tree.json", "validation-report.json"):
        (assembly / report).write_text("{}")

    keep(assembly, version="1.0.0", releases=releases)
    kept = keep(assembly, version="1.1.0", releases=releases)

    assert previous_release(releases) == kept
    assert kept.version == "1.1.0"
    assert {file.name for file in kept.assembly.iterdir()} == {"manifest.json", "A.template.json"}
    manifest = json.loads((kept.assembly / "manifest.json").read_text())
    del stack["additionalMetadataFile"]
    assert manifest == {"version": "1", "artifacts": {"A": stack}}
    assert kept.templates() == {"a": {"Resources": {}}}
