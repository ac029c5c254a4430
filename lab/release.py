"""The previous release as it was deployed: what an upgrade is proven from.

    python3 -m lab.release ASSEMBLY      keeps the cloud assembly of the lab's environment

`make release` synthesises it and calls this. The one release that is kept is a folder in
lab/releases, named after its version, that `cdk deploy --app` takes: a clone needs neither the
release's tag nor its pinned packages to deploy it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.control import LabError
from lab.places import PROJECT

RELEASES = PROJECT / "lab" / "releases"

# Reports about the app, which hold paths of the machine that synthesised it; no deployment reads
# them.
_REPORTS = ("cdk:feature-flag-report", "cdk:tree")


@dataclass(frozen=True, kw_only=True)
class Release:
    """A released version, and the folder with its cloud assembly."""

    version: str
    assembly: Path

    def templates(self) -> dict[str, dict[str, Any]]:
        """Each template by the name of its stack."""
        return templates(self.assembly)


def present_version() -> str:
    """The version of what is in this clone."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version: str = project["version"]
    return version


def previous_release(releases: Path = RELEASES) -> Release:
    """The release that is kept; raises LabError when there is none, or more than one."""
    kept = sorted(manifest.parent for manifest in releases.glob("*/manifest.json"))
    if len(kept) != 1:
        found = ", ".join(folder.name for folder in kept) or "none"
        raise LabError(
            f"{releases} must hold one release, the previous one, and holds {found}: `make release`"
            " writes it, and takes away the one before."
        )
    return Release(version=kept[0].name, assembly=kept[0])


def templates(assembly: Path) -> dict[str, dict[str, Any]]:
    """The templates of a cloud assembly, those of its stages included, by stack name."""
    found = {}
    for file in sorted(assembly.glob("**/manifest.json")):
        for artifact in json.loads(file.read_text(encoding="utf-8"))["artifacts"].values():
            if artifact["type"] == "aws:cloudformation:stack":
                properties = artifact["properties"]
                template = file.with_name(properties["templateFile"]).read_text(encoding="utf-8")
                found[properties["stackName"]] = json.loads(template)
    return found


def keep(assembly: Path, *, version: str, releases: Path = RELEASES) -> Release:
    """Keep a cloud assembly as the previous release, in place of the one that is kept.

    Of `assembly` only what a deployment reads is taken: manifests, templates and assets.
    """
    shutil.rmtree(releases, ignore_errors=True)
    folder = releases / version
    reports = shutil.ignore_patterns(
        "tree.json", "*.metadata.json", "validation-report.json", "*.lock", "__pycache__"
    )
    shutil.copytree(assembly, folder, ignore=reports)
    for file in folder.glob("**/manifest.json"):
        manifest = json.loads(file.read_text(encoding="utf-8"))
        manifest["artifacts"] = {
            name: {key: value for key, value in artifact.items() if key != "additionalMetadataFile"}
            for name, artifact in manifest["artifacts"].items()
            if artifact["type"] not in _REPORTS
        }
        file.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return Release(version=version, assembly=folder)


def main() -> None:
    release = keep(Path(sys.argv[1]), version=present_version())
    size = sum(file.stat().st_size for file in release.assembly.rglob("*") if file.is_file())
    print(
        f"{release.assembly.relative_to(PROJECT)} holds version {release.version} ({size >> 10} "
        "KiB). Commit it, and give pyproject.toml the next version."
    )


if __name__ == "__main__":
    main()
