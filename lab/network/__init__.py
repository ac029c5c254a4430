"""The lab's network: the Internet, and for each availability zone a VPC router and a host.

    internet ── nat-<zone> ── host-<zone>

`internet` holds the service addresses. `nat-<zone>` is what AWS provides around an instance: VPC
router, DHCP, the VPC's resolver, instance metadata's address and the NAT gateway. `host-<zone>` is
the instance's own. Nothing routes from any of them to the real world.
"""

from lab.network.network import INTERNET, Network, NetworkError, host_namespace, nat_namespace

__all__ = ["INTERNET", "Network", "NetworkError", "host_namespace", "nat_namespace"]
