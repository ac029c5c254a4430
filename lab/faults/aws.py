"""Faults of AWS around a host that boots."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from lab.cloud.cloud import CloudError
from lab.faults.trial import Fault, Trial


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
    """The outage ends when the host gave up, so that the rolled back configuration can boot."""
    signals = len(trial.lab.signals())

    def end_when_told() -> None:
        while not any("FAILURE" in told for told in trial.lab.signals()[signals:]):
            if deployed.wait(1):
                break
        end()

    deployed = threading.Event()
    teller = threading.Thread(target=end_when_told)
    with trial.stream() as stream:
        stream.wait_until(share=0.5)
        begin()
        teller.start()
        try:
            trial.lab.deploy_variant(extra_user_data="#!/bin/sh\necho another configuration\n")
        except CloudError as refusal:
            trial.expect(reason in str(refusal), f"No stack event says {reason}: {refusal}")
        else:
            trial.expect(False, "The deployment turned green")
        finally:
            deployed.set()
            teller.join()
        trial.repaired()
        stream.go_on()


FAULTS = (
    Fault(
        name="Secrets Manager silent for a minute while a host boots", inflict=_secrets_manager_away
    ),
    Fault(name="instance metadata silent for half a minute at a boot", inflict=_metadata_away),
    Fault(name="Secrets Manager silent for good: the update fails", inflict=_secrets_manager_gone),
)
