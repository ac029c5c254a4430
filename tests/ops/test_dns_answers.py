"""What a zone's own servers say of it counts only with their authority."""

import dns.flags
import dns.message
import dns.rrset
import pytest

from ops.deployment import CannotTell
from ops.dns_answers import Dns, Server

SERVER = Server(name="ns-1.example.net", address="198.51.100.1")


def of_zone(*, ttl: int = 900, minimum: int = 900, records: int = 1, lame: bool = False) -> Dns:
    """A server of example.com with this SOA record."""
    text = f"ns-1.example.net. hostmaster.example.com. 1 7200 900 1209600 {minimum}"

    def exchange(question: dns.message.Message, address: str) -> dns.message.Message:
        assert (address, question.flags & dns.flags.RD) == (SERVER.address, 0)
        response = dns.message.make_response(question)
        if not lame:
            response.flags |= dns.flags.AA
        texts = [text] * records
        response.answer = [dns.rrset.from_text("example.com.", ttl, "IN", "SOA", t) for t in texts]
        return dns.message.from_wire(response.to_wire())

    return Dns(exchange=exchange)


@pytest.mark.parametrize(("ttl", "minimum"), [(900, 86_400), (3600, 900)])
def test_a_missing_name_is_remembered_for_the_smaller_of_two_times(ttl: int, minimum: int) -> None:
    assert of_zone(ttl=ttl, minimum=minimum).absence_seconds(SERVER, "example.com") == 900


def test_a_server_without_the_zone_does_not_say_how_long() -> None:
    with pytest.raises(CannotTell, match="does not serve that zone"):
        of_zone(records=0).absence_seconds(SERVER, "example.com")
    with pytest.raises(CannotTell, match="with authority"):
        of_zone(lame=True).absence_seconds(SERVER, "example.com")
