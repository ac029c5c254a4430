"""The public addresses of the lab's Internet.

All but the public resolvers' are in documentation ranges (RFC 5737). Every one of them is on the
loopback interface of the `internet` namespace; the Elastic IPs of the emulated AWS are routed from
there to the NAT gateways.
"""

from ipaddress import IPv4Network

FIRST_RECEIVER = "198.51.100.25"
SECOND_RECEIVER = "198.51.100.26"
SINKHOLE = "198.51.100.27"
NAME_SERVER = "198.51.100.53"
SECOND_NAME_SERVER = "198.51.100.54"
PUBLIC_RESOLVERS = ("1.1.1.1", "8.8.8.8")
"""Where operators ask what the world sees; in the lab, other addresses of the name server."""

AWS_FRONT = "198.51.100.80"
DEBIAN_MIRROR = "198.51.100.81"

GLOBAL_APIS = ("iam", "route53", "sts", "s3")
"""Services whose APIs also have, or only have, a name without a Region: sts.amazonaws.com."""

FIRST_RECEIVER_NAME = "mx.example.net"
SECOND_RECEIVER_NAME = "mx.example.org"
SINKHOLE_DOMAIN = "sinkhole.example"
SINKHOLE_NAME = f"mx.{SINKHOLE_DOMAIN}"

ELASTIC_IPS = IPv4Network("203.0.113.0/24")
"""Where the emulator allocates Elastic IPs."""
