"""The cloud-init document as a whole."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

import user_data
from tests.user_data.conftest import SETTINGS

FOLDER = Path(user_data.__file__).parent
SUPPORT = {"__init__.py", "cloud_config.yaml"}


def test_the_same_settings_give_the_same_bytes_in_another_process() -> None:
    script = (
        "import sys, user_data; from tests.user_data.conftest import SETTINGS;"
        "sys.stdout.write(user_data.render(SETTINGS))"
    )
    other = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "Asia/Seoul"},
        cwd=FOLDER.parent,
    )

    assert other.stdout == user_data.render(SETTINGS)


def test_it_leaves_room_in_ec2s_limit_for_an_owners_script_that_fetches_what_it_needs() -> None:
    assert len(user_data.render(SETTINGS)) <= user_data.MAX_BYTES - 768


def test_an_extra_script_that_does_not_fit_is_refused_with_the_numbers() -> None:
    noise = Random(1).randbytes(4000).hex()  # noqa: S311

    with pytest.raises(ValueError, match=r"would have \d{5} bytes, and EC2 takes 16384.* has 8012"):
        user_data.render(replace(SETTINGS, extra_user_data=f"#!/bin/bash\n{noise}"))


def test_deploy_time_values_stay_readable_for_cloudformation() -> None:
    document = user_data.render(replace(SETTINGS, stack_name="${Token[TOKEN.123]}"))

    assert "      STACK_NAME=${Token[TOKEN.123]}\n" in document


def test_deploy_time_values_change_nothing_but_their_own_line() -> None:
    one = user_data.render(SETTINGS).splitlines()
    other = user_data.render(
        replace(SETTINGS, region="eu-west-1", stack_name="other", queue_volume_id="vol-1")
    ).splitlines()

    assert [line.split("=")[0].strip() for line in other if line not in one] == [
        "REGION",
        "QUEUE_VOLUME_ID",
        "STACK_NAME",
    ]


def test_every_file_of_the_folder_reaches_the_host(files: dict[str, str]) -> None:
    sources = {
        str(path.relative_to(FOLDER))
        for path in FOLDER.rglob("*")
        if path.is_file() and path.name not in SUPPORT and "__pycache__" not in path.parts
    }

    assert {file.source for file in user_data._FILES} == sources
    assert {file.path for file in user_data._FILES} <= set(files)


def test_no_placeholder_is_left_but_the_one_filled_in_on_the_host(files: dict[str, str]) -> None:
    left = {name for text in files.values() for name in re.findall(r"@[A-Z_]{3,}@", text)}

    assert left == {"@LOG_GROUP_NAME@"}


def test_no_secret_and_no_endpoint_of_anyones_own_is_in_it(files: dict[str, str]) -> None:
    everything = "\n".join(files.values())

    assert "PRIVATE KEY" not in everything
    assert "AWS_" not in everything


def test_what_is_not_its_own_is_not_decoded() -> None:
    with pytest.raises(ValueError, match="not a MIME multipart document"):
        user_data.decode("#!/bin/sh\n")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"architecture": "x86_64"}, "must be 'amd64' or 'arm64'"),
        ({"postmaster": "me@Mail.Example.com"}, "which has no mailboxes"),
        ({"extra_user_data": "apt-get install app"}, "must begin with a line such as"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        replace(SETTINGS, **change)
