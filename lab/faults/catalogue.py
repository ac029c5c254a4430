"""Every fault, in the order in which `make faults` goes through them."""

from lab.faults import aws, hosts, mta, network, receivers, volumes
from lab.faults.trial import Fault

FAULTS: tuple[Fault, ...] = (
    *mta.FAULTS,
    *network.FAULTS,
    *receivers.FAULTS,
    *volumes.FAULTS,
    *hosts.FAULTS,
    *aws.FAULTS,
)
