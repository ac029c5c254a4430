"""The bounds are read from what the tools print."""

import pytest

from bench.bounds import _signatures

NEW = """\
                   sign    verify    encrypt   decrypt   sign/s verify/s  encr./s  decr./s
rsa  2048 bits 0.000803s 0.000026s 0.000026s 0.000846s   1245.5  37861.5  38159.3   1181.5
                               keygen    encaps    decaps keygens/s  encaps/s  decaps/s
                    rsa2048 0.055000s 0.000027s 0.000847s      18.2   36974.1    1180.0
"""
OLD = """\
                  sign    verify    sign/s verify/s
rsa 2048 bits 0.000803s 0.000026s   1245.5  37861.5
"""


@pytest.mark.parametrize("output", [NEW, OLD], ids=["new", "old"])
def test_openssls_signatures_a_second_are_found(output: str) -> None:
    assert _signatures(output) == pytest.approx(1245.5)


def test_without_them_it_is_said() -> None:
    with pytest.raises(ValueError, match="said nothing of rsa 2048"):
        _signatures("openssl: not found\n")
