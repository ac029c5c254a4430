"""The reviewed files in tests/snapshots: what the app makes, as text that a person can read.

    <environment>/<Stack>.json   the template of each stack
    <environment>/user-data.txt  what the environment's hosts get that others' do not
    <Stack>.json                 a stack that belongs to no environment
    host-files.txt               the files that every host unpacks

`python3 -m review.snapshots` writes them all, and removes those of what is not there any more.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import user_data
from review.host_files import File, settings_of, unpacked

FOLDER: Final = Path("tests/snapshots")
USER_DATA: Final = "user-data.txt"
HOST_FILES: Final = "host-files.txt"
# In a template, where a launch template's user data would be: the file that shows it.
SEE: Final = "(see)"
# A host's own: they stand in the template, so that one user-data.txt shows what all hosts share.
CELL_SETTINGS: Final = ("QUEUE_VOLUME_ID", "SIGNAL_RESOURCE")
# What the files have in place of an environment's values.
PLACEHOLDERS: Final = ("SENDING_DOMAIN", "DKIM_SELECTOR")

Template = dict[str, Any]
Files = Mapping[str, str]
"""The reviewed files' text by their path in tests/snapshots: "prod/Network.json"."""


class NotSynthesised(Exception):
    """The app made no templates; the text says why."""


def synthesised(root: Path) -> Files:
    """What the app in `root` makes of the files there, cdk-nag's findings included.

    Raises:
        NotSynthesised: it failed; the text is what it said.
    """
    context = json.loads((root / "cdk.json").read_text("utf-8"))["context"]
    with tempfile.TemporaryDirectory() as outdir:
        # As `cdk synth` starts it.
        app = subprocess.run(
            [sys.executable, "app.py"],
            cwd=root,
            env={
                # Not a sandbox's: the snapshots are of what the files say.
                **{name: text for name, text in os.environ.items() if name != "POSTERN_SUFFIX"},
                "CDK_OUTDIR": outdir,
                "CDK_CONTEXT_JSON": json.dumps(context),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if app.returncode:
            raise NotSynthesised(f"app.py made no templates:\n{app.stdout}{app.stderr}".rstrip())
        return {**of_assembly(Path(outdir)), HOST_FILES: host_files()}


def of_assembly(folder: Path) -> Files:
    """The reviewed files of the stages and stacks in that cloud assembly."""
    files: dict[str, str] = {}
    for artifact in _artifacts(folder, "cdk:cloud-assembly"):
        stage = folder / artifact["properties"]["directoryName"]
        name = artifact["properties"]["displayName"]
        files |= {f"{name}/{file}": text for file, text in _of_stage(stage).items()}
    for stack, template in templates_of(folder):
        files[f"{stack}.json"] = reviewable(template)
    return files


def host_files() -> str:
    """Every file of the archive that hosts unpack, with placeholders for an environment's values.

    A file of the environment's own (`extra_user_data`) is in its user-data.txt.
    """
    return (
        "Every host unpacks these. @SENDING_DOMAIN@ and @DKIM_SELECTOR@ are the environment's.\n\n"
        + _listed(_common_files())
    )


def reviewable(template: Mapping[str, Any]) -> str:
    """The template as text: user data left to a file of its own, hashes of assets left out.

    A hash that changes with any file of an asset says nothing to a reviewer, who sees the file. The
    hash of a Lambda function's code stays, shortened: the template shows nothing else of the code,
    and the CDK computes it from the sources, the same on every machine.
    """
    shown: Template = json.loads(json.dumps(template))
    for resource in shown.get("Resources", {}).values():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::EC2::LaunchTemplate":
            data = properties["LaunchTemplateData"]
            data["UserData"] = {
                SEE: USER_DATA,
                **_cell_settings(joined(data["UserData"]["Fn::Base64"])),
            }
        if resource["Type"] == "AWS::Lambda::Function" and "S3Key" in properties["Code"]:
            key = properties["Code"]["S3Key"]
            properties["Code"]["S3Key"] = re.sub(r"^([0-9a-f]{16})[0-9a-f]{48}\b", r"\1", key)
    return without_hashes(json.dumps(shown, indent=2)) + "\n"


def without_hashes(text: str) -> str:
    return re.sub(r"\b[0-9a-f]{64}\b", "(hash)", text)


def joined(value: str | dict[str, Any]) -> str:
    """A string with deploy-time values in it, each written as <what it is>."""
    if isinstance(value, str):
        return value
    if "Fn::Join" in value:
        separator, parts = value["Fn::Join"]
        return str(separator).join(joined(part) for part in parts)
    (described,) = value.values()
    return f"<{'.'.join(described) if isinstance(described, list) else described}>"


def user_data_of(launch_template: Mapping[str, Any]) -> str:
    """The launch template's user data, its deploy-time values as `joined` shows them."""
    return joined(launch_template["Properties"]["LaunchTemplateData"]["UserData"]["Fn::Base64"])


def archive_of(document: str, folder: Path) -> bytes:
    """The archive that this user data names, out of the assembly in `folder`."""
    key = settings_of(document)["HOST_FILES_KEY"]
    return (folder / f"asset.{key}").read_bytes()


def write(files: Files, folder: Path) -> None:
    """Make `folder` hold these files and no others."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and str(path.relative_to(folder)) not in files:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            shutil.rmtree(path)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def read(folder: Path) -> Files:
    """The files there, as `write` takes them."""
    return {
        str(path.relative_to(folder)): path.read_text("utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _of_stage(folder: Path) -> dict[str, str]:
    files, documents = {}, {}
    for stack, template in templates_of(folder):
        files[f"{stack}.json"] = reviewable(template)
        for logical_id, resource in template.get("Resources", {}).items():
            if resource["Type"] == "AWS::EC2::LaunchTemplate":
                documents[logical_id] = user_data_of(resource)
    shown = {_host_text(document, folder.parent) for document in documents.values()}
    if len(shown) > 1:
        raise NotSynthesised(
            f"The user data of {', '.join(documents)} differ in more than "
            f"{' and '.join(CELL_SETTINGS)}, and {USER_DATA} shows one host only: add what differs "
            "to CELL_SETTINGS in review/snapshots.py."
        )
    for text in shown:
        files[USER_DATA] = text
    return files


def _host_text(document: str, assets: Path) -> str:
    """What this host gets, except what all hosts do and the settings in the template."""
    settings = settings_of(document)
    common = {
        path: file._replace(content=_filled_in(file.content, settings))
        for path, file in _common_files().items()
    }
    own = {
        path: file
        for path, file in unpacked(archive_of(document, assets)).items()
        if common.get(path) != file
    }
    for name in CELL_SETTINGS:
        document = re.sub(rf"(?m)^(      {name}=).*$", r"\1(see the template)", document)
    parts = [without_hashes(document)]
    if own:
        parts.append(f"==== in the archive, for this environment only ====\n{_listed(own)}")
    return "\n".join(parts)


def _cell_settings(document: str) -> dict[str, str]:
    settings = settings_of(document)
    return {name: settings[name] for name in CELL_SETTINGS if name in settings}


def _common_files() -> Mapping[str, File]:
    settings = user_data.HostSettings(
        region="",
        sending_domain="@SENDING_DOMAIN@",
        postmaster="postmaster@example.com",
        dkim_selector="@DKIM_SELECTOR@",
        dkim_secret_arn="",
        queue_volume_id="",
        queue_volume_gib=0,
        log_group_name="",
        stack_id="",
        signal_resource="",
        architecture="amd64",
        suppression_days=0,
    )
    return unpacked(user_data.archive(settings))


def _filled_in(text: str, settings: Mapping[str, str]) -> str:
    for name in PLACEHOLDERS:
        text = text.replace(f"@{name}@", settings[name])
    return text


def _listed(files: Mapping[str, File]) -> str:
    return "\n".join(
        f"---- {path} ({file.mode}) ----\n{file.content}" for path, file in files.items()
    )


def templates_of(folder: Path) -> Iterator[tuple[str, Template]]:
    """The stacks of this assembly, without those of its stages, by construct id."""
    for artifact in _artifacts(folder, "aws:cloudformation:stack"):
        text = (folder / artifact["properties"]["templateFile"]).read_text("utf-8")
        # A pipeline's stack in another Region has a colon in its id, and no file has on Windows.
        yield artifact["displayName"].rpartition("/")[2].replace(":", "-"), json.loads(text)


def _artifacts(folder: Path, of_type: str) -> Iterator[Mapping[str, Any]]:
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    for artifact in manifest.get("artifacts", {}).values():
        if artifact["type"] == of_type:
            yield artifact


if __name__ == "__main__":
    try:
        write(synthesised(Path()), FOLDER)
    except NotSynthesised as error:
        sys.exit(str(error))
