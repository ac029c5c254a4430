"""An imaginary host: its settings, as `stacks` would give them, and its files as it gets them."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

import user_data
from review.host_files import File, unpacked, written

SETTINGS = user_data.HostSettings(
    region="us-east-1",
    sending_domain="mail.example.com",
    postmaster="postmaster@example.net",
    dkim_selector="s1",
    dkim_secret_arn="arn:aws:secretsmanager:us-east-1:111122223333:secret:s1-AbCdEf",  # noqa: S106
    queue_volume_id="vol-0123456789abcdef0",
    queue_volume_gib=20,
    log_group_name="/postern/example/us-east-1a",
    stack_id="arn:aws:cloudformation:us-east-1:111122223333:stack/postern-example-MailHosts/1",
    signal_resource="CellUsEast1aAutoScalingGroup01234567",
    architecture="amd64",
    suppression_days=30,
)


def document(settings: user_data.HostSettings = SETTINGS) -> str:
    """The user data, with an archive that is in some bucket."""
    return user_data.render(settings, bucket="cdk-assets-111122223333", key="0123456789abcdef.tar")


@pytest.fixture(scope="session")
def host_files() -> Mapping[str, File]:
    """The files that a host gets in either way, by path, with an `extra_user_data`."""
    settings = replace(SETTINGS, extra_user_data="#!/bin/bash\necho installed\n")
    return {**written(document(settings)), **unpacked(user_data.archive(settings))}


@pytest.fixture(scope="session")
def files(host_files: Mapping[str, File]) -> dict[str, str]:
    """The contents of these files, by path."""
    return {path: file.content for path, file in host_files.items()}
