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
        seconds=60,
    )


def _metadata_away(trial: Trial) -> None:
    _boot_during_an_outage(
        trial,
        begin=lambda: trial.lab.metadata(answering=False),
        end=lambda: trial.lab.metadata(answering=True),
        seconds=30,
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
    trial: Trial, *, begin: Callable[[], None], end: Callable[[], None], seconds: float
) -> None:
    with trial.stream() as stream:
        stream.wait_until(share=0.5)
        begin()
        try:
            old = trial.lab.crash_host()
            time.sleep(seconds)
        finally:
            end()
        trial.lab.wait_for_host(other_than=old)
        trial.repaired()
        stream.go_on()


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
            trial.lab.deploy_variant(extra_user_data="#!/bin/sh\necho another configuration\n")
        except CloudError as refusal:
            trial.expect(reason in str(refusal), f"No stack event says {reason}: {refusal}")
        else:
            trial.expect(False, "The deployment turned green")
        outage.result()
        trial.repaired()
        stream.go_on()


def _during_set_up(lab: Lab, old: str, begin: Callable[[], None], end: Callable[[], None]) -> None:
    _wait_for_user_data(lab, other_than=old)
    begin()
    try:
        lab.wait_for_host(other_than=old)
    except LabError as failure:
        if "The first boot" not in str(failure):
            raise
    finally:
        end()


def _wait_for_user_data(lab: Lab, *, other_than: str, timeout: float = 180) -> None:
    """Wait until cloud-init of another host has written the first files of its user data."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not set(lab.instance_ids) <= {other_than}:
            with suppress(LabError):  # that host may be on its way up
                if lab.run("test", "-e", "/etc/postern/settings").returncode == 0:
                    return
        time.sleep(0.2)
    raise LabError(f"No new host had its user data after {timeout:.0f} s.")


FAULTS = (
    Fault(
        name="Secrets Manager silent for a minute while a host boots", inflict=_secrets_manager_away
    ),
    Fault(name="instance metadata silent for half a minute at a boot", inflict=_metadata_away),
    Fault(name="Secrets Manager silent for good: the update fails", inflict=_secrets_manager_gone),
    Fault(name="instance metadata silent during set-up: the update fails", inflict=_metadata_gone),
)
