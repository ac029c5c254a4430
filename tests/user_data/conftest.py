"""An imaginary host: its settings, as `stacks` would give them, and its files as it gets them."""

import re
from dataclasses import replace

import pytest

import user_data

SETTINGS = user_data.HostSettings(
    region="us-east-1",
    sending_domain="mail.example.com",
    postmaster="postmaster@example.net",
    dkim_selector="s1",
    dkim_secret_arn="arn:aws:secretsmanager:us-east-1:111122223333:secret:s1-AbCdEf",  # noqa: S106
    queue_volume_id="vol-0123456789abcdef0",
    log_group_name="/postern/example/us-east-1a",
    stack_name="postern-example-MailHosts",
    signal_resource="CellUsEast1aAutoScalingGroup01234567",
    architecture="amd64",
)


@pytest.fixture(scope="session")
def files() -> dict[str, str]:
    """The files that a host gets, by path, with an `extra_user_data`."""
    settings = replace(SETTINGS, extra_user_data="#!/bin/bash\necho installed\n")
    shown = user_data.decode(user_data.render(settings))
    _, *pairs = re.split(r"^---- (\S+) \(.*\) ----\n", shown, flags=re.MULTILINE)
    return dict(zip(pairs[::2], pairs[1::2], strict=True))
