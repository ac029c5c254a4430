"""Faults of the whole host: it goes away, and a successor takes over its queue."""

from __future__ import annotations

from lab.cloud.cloud import CloudError
from lab.faults.trial import Fault, Trial


def _ends_without_shutdown(trial: Trial) -> None:
    """With a full queue: port 25 is blocked until the successor is there."""
    (old,) = trial.lab.instance_ids
    trial.lab.block_smtp(blocked=True)
    try:
        with trial.stream() as stream:
            stream.wait_until(share=0.7)
            trial.lab.crash_host()
            trial.lab.wait_for_host(other_than=old)
            trial.repaired()
            stream.go_on()
    finally:
        trial.lab.block_smtp(blocked=False)
    trial.flush(after_silence=True)


def _updated(trial: Trial) -> None:
    (old,) = trial.lab.instance_ids
    with trial.stream() as stream:
        stream.wait_until(share=0.5)
        trial.lab.deploy_variant(extra_user_data="#!/bin/sh\necho an application is installed\n")
        trial.expect(trial.lab.instance_ids != [old], "The update did not replace the host")
        trial.repaired()
        stream.go_on()
    trial.lab.deploy()


def _update_fails(trial: Trial) -> None:
    (old,) = trial.lab.instance_ids
    with trial.stream() as stream:
        stream.wait_until(share=0.5)
        try:
            trial.lab.deploy_variant(extra_user_data="#!/bin/sh\nexit 1\n")
        except CloudError as refusal:
            trial.expect(
                "extra-user-data-failed" in str(refusal),
                f"The stack events do not say what failed: {refusal}",
            )
        else:
            trial.expect(False, "A host whose set-up failed turned the deployment green")
        trial.expect(trial.lab.instance_ids != [old], "No new host was tried")
        trial.repaired()
        stream.go_on()


FAULTS = (
    Fault(name="the host ends without shutdown, its queue full", inflict=_ends_without_shutdown),
    Fault(name="the host is replaced by a stack update", inflict=_updated),
    Fault(name="a stack update fails and is rolled back", inflict=_update_fails),
)
