"""How `setup/first-boot` gets the host's files, with a stand-in for the AWS CLI."""

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

import user_data
from tests.user_data.conftest import SETTINGS

SCRIPT = Path(user_data.__file__).parent / "setup/first-boot"
ARCHIVE = user_data.archive(SETTINGS)


def fetch(
    folder: Path,
    *,
    stored: bytes = ARCHIVE,
    refusals: int = 0,
    refusal: str = "An error occurred (AccessDenied) when calling the GetObject operation",
) -> subprocess.CompletedProcess[str]:
    """Fetch the files to `folder`/root, from an S3 that refuses some calls and then gives `stored`.

    Time passes as fast as it is asked for. What is printed last is the reason for the stack event.
    """
    (folder / "stored").write_bytes(stored)
    (folder / "root").mkdir(exist_ok=True)
    aws = f"""
        aws() {{
            echo "$*" >>{folder}/asked
            if (($(wc --lines <{folder}/asked) <= {refusals})); then
                echo '{refusal}' >&2
                return 254
            fi
            cp {folder}/stored "${{@: -1}}"
        }}
    """
    commands = (
        f"source {SCRIPT}; {aws} archive={folder}/archive.tar; root={folder}/root;"
        " sleep() { SECONDS=$((SECONDS + $1)); echo waited; };"
        " trap 'echo \"$reason\"' EXIT; fetch_host_files; reason=none"
    )
    return subprocess.run(
        ["bash", "-c", commands],
        check=False,
        capture_output=True,
        text=True,
        env={
            "PATH": os.environ["PATH"],
            "REGION": "us-east-1",
            "HOST_FILES_BUCKET": "a-bucket",
            "HOST_FILES_KEY": "a-key.tar",
            "HOST_FILES_SHA256": hashlib.sha256(ARCHIVE).hexdigest(),
        },
    )


def test_the_files_are_unpacked_with_their_modes_and_as_new(tmp_path: Path) -> None:
    before = tmp_path.stat().st_mtime

    fetched = fetch(tmp_path)

    assert (fetched.returncode, fetched.stdout, fetched.stderr) == (0, "none\n", "")
    with tarfile.open(fileobj=io.BytesIO(ARCHIVE), mode="r:") as archive:
        for member in archive:
            file = tmp_path / "root" / member.name
            assert file.stat().st_mode & 0o7777 == member.mode, member.name
            assert file.stat().st_mtime >= before, "postern-setup would not see that it is new"
    assert not (tmp_path / "archive.tar").exists()
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("s3api get-object --region us-east-1 --bucket a-bucket --key a-key.tar")


def test_folders_that_are_there_keep_their_modes(tmp_path: Path) -> None:
    folder = tmp_path / "root/etc/mail"
    folder.mkdir(parents=True)
    folder.chmod(0o2750)

    assert fetch(tmp_path).returncode == 0

    assert (folder / "sendmail.mc").exists()
    assert folder.stat().st_mode & 0o7777 == 0o2750


def test_a_permission_that_is_not_known_everywhere_yet_is_waited_for(tmp_path: Path) -> None:
    fetched = fetch(tmp_path, refusals=3)

    assert (fetched.returncode, fetched.stdout) == (0, "waited\n" * 3 + "none\n")
    assert "postern: s3 get-object a-bucket/a-key.tar: An error occurred (Acc" in fetched.stderr


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        ("An error occurred (AccessDenied)", "s3-get-object-failed"),
        ("Unable to locate credentials.", "instance-metadata-not-answering"),
    ],
)
def test_an_archive_that_cannot_be_fetched_is_given_up_after_five_minutes(
    tmp_path: Path, refusal: str, reason: str
) -> None:
    refused = fetch(tmp_path, refusals=1000, refusal=refusal)

    assert refused.returncode == 1
    assert refused.stdout == "waited\n" * 60 + f"{reason}\n"
    assert not list((tmp_path / "root").iterdir())


@pytest.mark.parametrize("stored", [b"", ARCHIVE[:-512], ARCHIVE.replace(b"Restart=", b"ReStart=")])
def test_another_archive_than_the_deployed_one_is_not_unpacked(
    tmp_path: Path, stored: bytes
) -> None:
    refused = fetch(tmp_path, stored=stored)

    assert refused.returncode == 1
    assert refused.stdout.splitlines()[-1] == "host-files-not-as-deployed"
    assert "s3://a-bucket/a-key.tar is not what was deployed" in refused.stderr
    assert not list((tmp_path / "root").iterdir())


@pytest.mark.parametrize("step", ["fetch_host_files", "signal FAILURE i-1"])
def test_without_its_packages_a_host_gives_up_at_once(step: str) -> None:
    """It can tell nobody, so it ends, and its successor tries again."""
    done = subprocess.run(
        ["/bin/bash", "-c", f"source {SCRIPT}; reason=none; {step} || echo $? $reason"],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/nonexistent", "REGION": "us-east-1"},
    )

    reason = "packages-not-installed" if step == "fetch_host_files" else "none"
    assert done.stdout == f"1 {reason}\n"
    assert "command not found" not in done.stderr
