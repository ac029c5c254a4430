"""Faults of AWS around a host that boots."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from lab.cloud.cloud import CloudError
from lab.control import LabError
from lab.faults.trial import Fault, Trial
from lab.lab import Lab


def _secrets_manager_away(trial: Trial) -> None:
    _boot_during_an_outage(
        trial,
        begin=lambda: trial.lab.aws_apis(unanswered=["secretsmanager"]),
        end=trial.lab.aws_apis,
        # There when the first call had no answer, half a minute after it was made.
        until=lambda old: _wait_for_file(trial.lab, "/run/postern/failure", other_than=old),
    )


def _metadata_away(trial: Trial) -> None:
    _boot_during_an_outage(
        trial,
        begin=lambda: trial.lab.metadata(answering=False),
        end=lambda: trial.lab.metadata(answering=True),
        until=lambda _: time.sleep(30),
    )


def _secrets_manager_gone(trial: Trial) -> None:
    _deployment_fails_and_says(
        trial,
        begin=lambda: trial.lab.aws_apis(unanswered=["secretsmanager"]),
        end=trial.lab.aws_apis,
        reason="secretsmanager-get-secret-value-failed",
    )


def _metadata_gone(trial: Trial) -> None:
    _deployment_fails_and_says(
        trial,
        begin=lambda: trial.lab.metadata(answering=False),
        end=lambda: trial.lab.metadata(answering=True),
        reason="instance-metadata-not-answering",
    )


def _boot_during_an_outage(
    trial: Trial,
    *,
    begin: Callable[[], None],
    end: Callable[[], None],
    until: Callable[[str], None],
) -> None:
    """An outage from the end of the host on; `until` gets its id and returns when to end it."""
    with trial.stream() as stream:
        stream.wait_until(share=0.5)
        begin()
        try:
            old = trial.lab.crash_host()
            until(old)
        finally:
            end()
        trial.go_on_after(old)


def _deployment_fails_and_says(
    trial: Trial, *, begin: Callable[[], None], end: Callable[[], None], reason: str
) -> None:
    """An outage from when the new host has its user data until its set-up failed.

    Then the host can tell, whatever was away, and the rolled back configuration can boot.
    """
    (old,) = trial.lab.instance_ids
    with trial.stream() as stream, ThreadPoolExecutor() as executor:
        stream.wait_until(share=0.5)
        outage = executor.submit(_during_set_up, trial.lab, old, begin, end)
        try:
            # Another script for each reason: without a change no host would be replaced.
            trial.lab.deploy_variant(extra_user_data=f"#!/bin/sh\necho not {reason}\n")
            told = "The deployment turned green"
        except CloudError as refusal:
            told = str(refusal)
        outage.result()
        trial.expect(reason in told, f"No stack event says {reason}: {told}")
        trial.repaired()
        stream.go_on()


def _during_set_up(lab: Lab, old: str, begin: Callable[[], None], end: Callable[[], None]) -> None:
    # cloud-init has its user data, and packages come next.
    _wait_for_file(lab, "/etc/postern/settings", other_than=old)
    begin()
    try:
        lab.wait_for_host(other_than=old, timeout=600)  # it tries for five minutes
    except LabError as failure:
        if "The first boot" not in str(failure):
            raise
    finally:
        end()


def _wait_for_file(lab: Lab, path: str, *, other_than: str, timeout: float = 600) -> None:
    """Wait until another host than this one has that file."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with suppress(LabError):  # one host is on its way down, or the other on its way up
            another = not set(lab.instance_ids) <= {other_than}
            if another and lab.run("test", "-e", path).returncode == 0:
                return
        time.sleep(0.2)
    raise LabError(f"No new host had {path} within {timeout:.0f} s.")


FAULTS = (
    Fault(
        name="Secrets Manager silent for half a minute when a host asks it",
        inflict=_secrets_manager_away,
    ),
    Fault(name="instance metadata silent for half a minute at a boot", inflict=_metadata_away),
    Fault(name="Secrets Manager silent for good: the update fails", inflict=_secrets_manager_gone),
    Fault(name="instance metadata silent during set-up: the update fails", inflict=_metadata_gone),
)
