"""The user data and the archive as a whole."""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from time import time
from typing import Any

import pytest

import user_data
from review.host_files import File, settings_of, unpacked, written
from tests.user_data.conftest import SETTINGS, document

FOLDER = Path(user_data.__file__).parent
SUPPORT = {"__init__.py", "cloud_config.yaml"}


def test_the_same_settings_give_the_same_bytes_everywhere(tmp_path: Path) -> None:
    """In another process, from another clone whose files are new and differ in their modes."""
    for path in (file for file in FOLDER.rglob("*") if file.is_file()):
        copy = tmp_path / "user_data" / path.relative_to(FOLDER)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o600)
        os.utime(copy, (time(), time()))
    script = (
        "import os, sys; os.umask(0o077);"
        "import user_data; from tests.user_data.conftest import SETTINGS, document;"
        "assert user_data.__file__.startswith(sys.argv[1]);"
        "sys.stdout.buffer.write(document().encode() + user_data.archive(SETTINGS))"
    )
    other = subprocess.run(
        [sys.executable, "-P", "-c", script, tmp_path],
        check=True,
        capture_output=True,
        env={
            "PYTHONPATH": f"{tmp_path}:{FOLDER.parent}",
            "PYTHONHASHSEED": "1",
            "LC_ALL": "C",
            "TZ": "Asia/Seoul",
        },
        cwd=tmp_path,
    )

    assert other.stdout == document().encode() + user_data.archive(SETTINGS)


def test_nothing_of_the_machine_that_packs_it_is_in_the_archive() -> None:
    with tarfile.open(fileobj=BytesIO(user_data.archive(SETTINGS)), mode="r:") as archive:
        members = archive.getmembers()

    assert members
    for member in members:
        assert member.isreg(), member.name  # a folder would change the mode of the host's own
        assert not member.name.startswith(("/", "."))
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "root", "root")
        assert member.mtime == 0
    assert [member.name for member in members] == sorted({member.name for member in members})


def test_the_user_data_names_the_archive_by_place_and_contents() -> None:
    settings = settings_of(user_data.render(SETTINGS, bucket="a-bucket", key="a/key.tar"))

    assert settings["HOST_FILES_BUCKET"] == "a-bucket"
    assert settings["HOST_FILES_KEY"] == "a/key.tar"
    packed = user_data.archive(SETTINGS)
    assert settings["HOST_FILES_SHA256"] == hashlib.sha256(packed).hexdigest()


def test_a_file_that_changes_changes_the_user_data() -> None:
    """Which is what replaces a host."""
    one, other = (
        document(replace(SETTINGS, extra_user_data=f"#!/bin/sh\necho {word}\n"))
        for word in ("one", "other")
    )

    changed = [
        name for name, value in settings_of(one).items() if settings_of(other)[name] != value
    ]
    assert changed == ["HOST_FILES_SHA256"]


def test_the_archive_is_the_same_in_every_cell() -> None:
    elsewhere = replace(
        SETTINGS,
        region="eu-west-1",
        stack_id="other",
        queue_volume_id="vol-1",
        signal_resource="other",
        log_group_name="other",
        dkim_secret_arn="other",  # noqa: S106
    )

    assert user_data.archive(elsewhere) == user_data.archive(SETTINGS)


def test_a_warm_up_plan_is_one_setting_more_and_changes_no_file() -> None:
    planned = replace(SETTINGS, warm_up="2026-12-01:200,300")
    with_plan, without = settings_of(document(planned)), settings_of(document())
    assert with_plan == {**without, "WARM_UP": "2026-12-01:200,300"}
    assert user_data.archive(planned) == user_data.archive(SETTINGS)


def test_deploy_time_values_stay_readable_for_cloudformation() -> None:
    text = document(replace(SETTINGS, stack_id="${Token[TOKEN.123]}"))

    assert "      STACK_ID=${Token[TOKEN.123]}\n" in text


def test_deploy_time_values_change_nothing_but_their_own_line() -> None:
    one = document().splitlines()
    other = document(
        replace(SETTINGS, region="eu-west-1", stack_id="other", queue_volume_id="vol-1")
    ).splitlines()

    assert [line.split("=")[0].strip() for line in other if line not in one] == [
        "REGION",
        "QUEUE_VOLUME_ID",
        "STACK_ID",
    ]


def test_every_file_of_the_folder_reaches_the_host_with_its_mode(
    host_files: Mapping[str, File],
) -> None:
    sources = {
        str(path.relative_to(FOLDER))
        for path in FOLDER.rglob("*")
        if path.is_file() and path.name not in SUPPORT and "__pycache__" not in path.parts
    }

    placed = (*user_data._FILES, *user_data._CLIENT_FILES)
    assert {file.source for file in placed} == sources
    for file in user_data._FILES:
        text = (FOLDER / file.source).read_text()
        for name, value in (("SENDING_DOMAIN", "mail.example.com"), ("DKIM_SELECTOR", "s1")):
            text = text.replace(f"@{name}@", value)
        assert host_files[file.path] == File(file.mode, text)


def test_only_what_packages_and_the_first_boot_need_is_there_before_the_packages() -> None:
    """Beside any other file dpkg would find ours in its way."""
    assert list(written(document())) == [
        "/etc/postern/settings",
        "/usr/sbin/policy-rc.d",
        "/usr/local/lib/postern/first-boot",
    ]
    assert not written(document()).keys() & unpacked(user_data.archive(SETTINGS)).keys()


def test_the_owners_script_can_be_read_and_run_by_root_only(
    host_files: Mapping[str, File],
) -> None:
    script = host_files["/usr/local/lib/postern/extra-user-data"]

    assert script == File("0700", "#!/bin/bash\necho installed\n")
    without = unpacked(user_data.archive(SETTINGS))
    assert "/usr/local/lib/postern/extra-user-data" not in without


def test_no_placeholder_is_left_but_the_one_filled_in_on_the_host(files: dict[str, str]) -> None:
    left = {name for text in files.values() for name in re.findall(r"@[A-Z_]{3,}@", text)}

    assert left == {"@LOG_GROUP_NAME@"}
    assert not re.search(r"@[A-Z_]{3,}@", document())


def test_no_secret_and_no_endpoint_of_anyones_own_is_in_it(files: dict[str, str]) -> None:
    everything = "\n".join(files.values())

    assert "PRIVATE KEY" not in everything
    assert "AWS_" not in everything


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"architecture": "x86_64"}, "must be 'amd64' or 'arm64'"),
        ({"postmaster": "me@Mail.Example.com"}, "which has no mailboxes"),
        ({"extra_user_data": "apt-get install app"}, "must begin with a line such as"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        replace(SETTINGS, **change)
