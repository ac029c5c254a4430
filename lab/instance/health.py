"""The health check of a load balancer: one HTTP request, from where the load balancer is."""

import http.client
from ipaddress import IPv4Address

from lab.network.namespace import entered

_SECONDS = 3


def is_well(namespace: str, address: IPv4Address, port: int, path: str) -> bool:
    """Whether a host answers with 200, asked out of the network namespace `namespace`."""
    connection = http.client.HTTPConnection(str(address), port, timeout=_SECONDS)
    try:
        with entered(namespace):
            connection.connect()
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
