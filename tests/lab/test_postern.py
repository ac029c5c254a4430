"""What the operator's commands say of the deployed lab is so."""

import pytest

from lab.lab import Lab
from tests.lab.laptop import postern_json

pytestmark = pytest.mark.lab


def test_the_address_that_mail_leaves_from_is_in_use(lab: Lab) -> None:
    elastic_ip = lab.cloud.client("ec2").describe_addresses()["Addresses"][0]["PublicIp"]

    status, told = postern_json(lab, "addresses")

    (address,) = told["addresses"]
    assert (status, told["verdict"]) == (0, "fine"), told
    assert (address["address"], address["reverse_dns"]) == (elastic_ip, "mail.example.com")
    assert address["held_by"].startswith("nat-")
    assert address["since"]


def test_the_address_that_mail_leaves_from_is_not_released(lab: Lab) -> None:
    elastic_ip = lab.cloud.client("ec2").describe_addresses()["Addresses"][0]["PublicIp"]

    status, told = postern_json(lab, "addresses", "release", elastic_ip, "--yes")

    assert (status, "postern-lab-SendingIdentity" in told["error"]) == (1, True)
    held = lab.cloud.client("ec2").describe_addresses()["Addresses"]
    assert [address["PublicIp"] for address in held] == [elastic_ip]


def test_the_port_25_request_says_what_the_host_and_the_hosted_zone_really_have(lab: Lab) -> None:
    _status, told = postern_json(lab, "port25-request", "--language", "both")

    verdicts = {finding["check"]: finding["verdict"] for finding in told["findings"]}
    for check in (
        "nothing comes in",
        "senders of the sending domain only",
        "SPF record",
        "DKIM record",
        "nothing leaves unsigned",
        "DMARC record",
        "bounces reach the postmaster",
    ):
        assert verdicts[check] == "fine", told["findings"]
    (elastic_ip,) = told["reverse_dns"]
    for text in told["text"].values():
        assert f"{elastic_ip}  mail.example.com" in text
        assert f"v=spf1 ip4:{elastic_ip} -all" in text
        assert "s1._domainkey.mail.example.com" in text
