"""Faults of the whole host: it goes away, and a successor takes over its queue."""

from __future__ import annotations

from lab.cloud.cloud import CloudError
from lab.faults.stream import Stream
from lab.faults.trial import Fault, Trial

# What the host is made of: its deployed values and the digest of all its files.
_CONFIGURATION = "cat /etc/postern/settings"


def _ends_without_shutdown(trial: Trial) -> None:
    with trial.full_queue():
        trial.go_on_after(trial.lab.crash_host())


def _updated(trial: Trial) -> None:
    (old,) = trial.lab.instance_ids
    with trial.full_queue() as stream:
        trial.lab.deploy_variant(extra_user_data="#!/bin/sh\necho an application is installed\n")
        trial.expect(trial.lab.instance_ids != [old], "The update did not replace the host")
        _go_on(trial, stream)
    trial.lab.deploy()


def _update_fails(trial: Trial) -> None:
    (old,) = trial.lab.instance_ids
    configuration = trial.run(_CONFIGURATION)
    with trial.full_queue() as stream:
        try:
            trial.lab.deploy_variant(extra_user_data="#!/bin/sh\nexit 1\n")
        except CloudError as refusal:
            trial.expect(
                "extra-user-data-failed" in str(refusal),
                f"The stack events do not say what failed: {refusal}",
            )
        else:
            trial.expect(False, "A host whose set-up failed turned the deployment green")
        trial.lab.wait_for_host(other_than=old)
        trial.expect(
            trial.run(_CONFIGURATION) == configuration,
            "After the rollback the host has another configuration than before",
        )
        _go_on(trial, stream)


def _go_on(trial: Trial, stream: Stream) -> None:
    trial.lab.block_smtp(blocked=False)
    trial.repaired()
    stream.go_on()
    trial.flush()


FAULTS = (
    Fault(name="the host ends without shutdown, its queue full", inflict=_ends_without_shutdown),
    Fault(name="the host is replaced by a stack update", inflict=_updated),
    Fault(name="a stack update fails and is rolled back", inflict=_update_fails),
)
