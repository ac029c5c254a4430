"""The CDK command line reaches the emulated AWS only, and its failures come with a reason."""

from pathlib import Path

import pytest

from lab.cloud.cloud import Cloud, CloudError

pytestmark = pytest.mark.lab


@pytest.fixture
def printing_cloud(tmp_path: Path) -> Cloud:
    """No emulator, and in place of the command line a script that prints its environment."""
    cdk = tmp_path / "cdk"
    cdk.write_text('#!/bin/sh\nenv\necho "key postmaster: write an address"\nexit 1\n')
    cdk.chmod(0o755)
    return Cloud(python=Path("python"), state=tmp_path, cdk=cdk, progress=print)


def test_a_failed_synthesis_says_what_the_app_said(printing_cloud: Cloud, tmp_path: Path) -> None:
    with pytest.raises(CloudError) as failure:
        printing_cloud.synthesize("lab", app=tmp_path)

    assert "`cdk synth` failed." in str(failure.value)
    assert str(failure.value).endswith("key postmaster: write an address")


def test_no_account_of_the_caller_is_ever_reached(
    printing_cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
    with pytest.raises(CloudError):
        printing_cloud.synthesize("lab", app=tmp_path)
    environment = printing_cloud.cdk_log.read_text().splitlines()

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "HTTPS_PROXY"):
        assert not any(line.startswith(f"{name}=") for line in environment)
    assert "AWS_ENDPOINT_URL=http://127.0.0.1:9" in environment
    assert "AWS_ACCESS_KEY_ID=test" in environment


def test_without_an_emulator_there_is_no_client(printing_cloud: Cloud) -> None:
    with pytest.raises(CloudError, match="No emulated AWS is running"):
        printing_cloud.client("ec2")


def test_another_process_finds_the_running_emulator(cloud: Cloud) -> None:
    other = Cloud(
        python=Path("python"), state=cloud.directory.parent, cdk=Path("cdk"), progress=print
    )

    assert other.client("sts").get_caller_identity()["Account"] == "000000000000"
