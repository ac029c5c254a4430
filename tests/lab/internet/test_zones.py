"""Zone files: the deployed records as they are, and each fault as exactly one change."""

import dns.exception
import dns.rdatatype
import dns.zone
import pytest

from lab.internet.zones import (
    BLOCK_LISTS,
    FAULTS,
    LARGE_RECEIVERS,
    SECOND_SERVER_LAGS,
    SERVER_FAULTS,
    CloudRecords,
    read_record_sets,
    zone_files,
)
from tests.lab.internet.conftest import DkimKey, StubbedCloud, record_set

DOMAIN = "mail.example.com."


def records(cloud: StubbedCloud) -> CloudRecords:
    return CloudRecords(
        name_servers=tuple(f"{name}." for name in cloud.name_servers),
        hosted_zone=read_record_sets(cloud.record_sets),
        reverse_dns=tuple(cloud.reverse_dns.items()),
    )


def parse(
    deployed: CloudRecords, *faults: str, mirror_hosts: tuple[str, ...] = ()
) -> dict[str, dns.zone.Zone]:
    files = zone_files(
        records=deployed,
        hosted_zone_name="example.com.",
        region="us-east-1",
        mirror_hosts=mirror_hosts,
        faults=faults,
        serial=42,
    )
    return {
        name: dns.zone.from_text(text, origin=name, relativize=False)
        for name, text in files.items()
    }


def texts(zone: dns.zone.Zone, name: str) -> list[str]:
    """The TXT records at `name`, each with its strings joined, as a receiver reads it."""
    found = zone.get_rdataset(name, dns.rdatatype.TXT)
    return [b"".join(rdata.strings).decode() for rdata in found or ()]


def addresses(zone: dns.zone.Zone, name: str) -> list[str]:
    found = zone.get_rdataset(name, dns.rdatatype.A)
    return [rdata.address for rdata in found or ()]


def test_the_hosted_zone_is_served_as_it_is_deployed(
    cloud: StubbedCloud, dkim_key: DkimKey
) -> None:
    zone = parse(records(cloud))["example.com."]
    assert addresses(zone, DOMAIN) == ["203.0.113.10"]
    assert texts(zone, DOMAIN) == ["v=spf1 ip4:203.0.113.10 -all"]
    assert texts(zone, f"s1._domainkey.{DOMAIN}") == [dkim_key.text]
    assert texts(zone, f"_dmarc.{DOMAIN}") == ["v=DMARC1; p=reject; adkim=s; aspf=s"]
    rdataset = zone.get_rdataset(DOMAIN, dns.rdatatype.A)
    assert rdataset is not None
    assert rdataset.ttl == 300


def test_every_zone_says_its_serial_and_lets_nobody_remember_a_missing_name(
    cloud: StubbedCloud,
) -> None:
    for name, zone in parse(records(cloud)).items():
        start_of_authority = zone.get_rdataset(name, dns.rdatatype.SOA)
        assert start_of_authority is not None
        assert start_of_authority[0].serial == 42
        assert (start_of_authority.ttl, start_of_authority[0].minimum) == (0, 0)


def test_a_wildcard_is_one_although_route_53_writes_it_in_octal() -> None:
    (record,) = read_record_sets([record_set("\\052.example.com.", "A", "192.0.2.1")])
    assert record.name == "*.example.com."


def test_only_the_apex_gives_up_its_own_ns_records() -> None:
    kept = read_record_sets(
        [
            record_set("example.com.", "SOA", "a. b. 1 2 3 4 5"),
            record_set("example.com.", "NS", "ns.example.net."),
            record_set("sub.example.com.", "NS", "ns.example.net."),
        ]
    )
    assert [record.name for record in kept] == ["sub.example.com."]


def test_an_alias_record_is_refused_by_name() -> None:
    alias = {"Name": "www.example.com.", "Type": "A", "AliasTarget": {"DNSName": "x."}}
    with pytest.raises(ValueError, match=r"www\.example\.com\. A is an alias record"):
        read_record_sets([alias])


def test_an_alias_of_a_load_balancer_is_answered_with_its_addresses() -> None:
    name = "hosts-1.elb.us-east-1.amazonaws.com"
    alias = {
        "Name": "in.example.com.",
        "Type": "A",
        "AliasTarget": {"DNSName": f"dualstack.{name}."},
    }
    (record,) = read_record_sets([alias], load_balancers={name: ["10.40.0.62", "10.40.0.94"]})
    assert (record.type, record.values) == ("A", ("10.40.0.62", "10.40.0.94"))
    with pytest.raises(ValueError, match="is an alias record"):
        read_record_sets([alias], load_balancers={"other": ["10.40.0.62"]})


def test_a_badly_quoted_value_does_not_become_a_zone() -> None:
    deployed = read_record_sets([record_set(DOMAIN, "TXT", '"' + "x" * 256 + '"')])
    with pytest.raises(dns.exception.DNSException):
        parse(CloudRecords(hosted_zone=deployed))


def test_elastic_ips_have_the_names_that_aws_gave_them(cloud: StubbedCloud) -> None:
    zone = parse(records(cloud))["113.0.203.in-addr.arpa."]
    pointer = zone.get_rdataset("10.113.0.203.in-addr.arpa.", dns.rdatatype.PTR)
    assert pointer is not None
    assert pointer[0].target.to_text() == DOMAIN


def test_an_elastic_ip_of_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"192\.0\.2\.1 is outside 203\.0\.113\.0/24"):
        parse(CloudRecords(reverse_dns=(("192.0.2.1", DOMAIN),)))


def test_each_mirror_host_leads_to_the_lab_s_mirror() -> None:
    zones = parse(CloudRecords(), mirror_hosts=("one.example.edu", "two.example.edu"))
    for host in ("one.example.edu", "two.example.edu"):
        assert addresses(zones[f"{host}."], f"{host}.") == ["198.51.100.81"]


def test_one_wildcard_covers_every_aws_name() -> None:
    zone = parse(CloudRecords())["us-east-1.amazonaws.com."]
    assert addresses(zone, "*.us-east-1.amazonaws.com.") == ["198.51.100.80"]
    # Any name below it would take the wildcard away from its parents (RFC 4592 section 2.2.2).
    assert not [name for name in zone if name.to_text().endswith("s3.us-east-1.amazonaws.com.")]


def test_spf_without_eip_still_ends_in_fail(cloud: StubbedCloud) -> None:
    zone = parse(records(cloud), "spf-without-eip")["example.com."]
    assert texts(zone, DOMAIN) == ["v=spf1 -all"]


def test_a_broken_dkim_key_differs_in_one_digit(cloud: StubbedCloud, dkim_key: DkimKey) -> None:
    zone = parse(records(cloud), "dkim-broken")["example.com."]
    (broken,) = texts(zone, f"s1._domainkey.{DOMAIN}")
    assert len(broken) == len(dkim_key.text)
    assert sum(a != b for a, b in zip(broken, dkim_key.text, strict=True)) == 1


@pytest.mark.parametrize(
    ("fault", "missing"),
    [("dkim-missing", f"s1._domainkey.{DOMAIN}"), ("dmarc-missing", f"_dmarc.{DOMAIN}")],
)
def test_a_missing_record_is_the_only_one(cloud: StubbedCloud, fault: str, missing: str) -> None:
    good, faulty = (parse(records(cloud), *faults)["example.com."] for faults in ((), (fault,)))
    assert {n.to_text() for n in good} - {n.to_text() for n in faulty} == {missing}


def test_a_fault_leaves_every_other_zone_alone(cloud: StubbedCloud) -> None:
    good = parse(records(cloud))
    for fault in FAULTS:
        faulty = parse(records(cloud), fault)
        changed = {name for name in good if good[name] != faulty[name]}
        if fault.startswith("dnsbl-"):
            assert changed == {f"{name}." for name in BLOCK_LISTS}
        else:
            assert changed <= {"example.com.", "113.0.203.in-addr.arpa."}
            assert bool(changed) is (fault not in (*SERVER_FAULTS, SECOND_SERVER_LAGS))


def test_an_unknown_fault_is_refused_with_the_known_ones(cloud: StubbedCloud) -> None:
    with pytest.raises(ValueError, match="Unknown DNS fault spf-gone"):
        parse(records(cloud), "spf-gone")


def test_the_root_is_served_so_that_a_name_nobody_has_does_not_exist() -> None:
    zone = parse(CloudRecords(), mirror_hosts=("one.example.edu",))["."]
    names = {name.to_text() for name in zone}
    assert {".", "ns1.", "ns2.", "one.example.edu.", "ns1.one.example.edu."} <= names
    assert not names & {"com.", "edu.", "example.edu."}


def test_the_hosted_zone_has_the_servers_that_aws_gave_it_and_they_have_addresses(
    cloud: StubbedCloud,
) -> None:
    zones = parse(records(cloud))
    for zone in ("example.com.", "."):  # its own word, and its parent's
        servers = zones[zone].get_rdataset("example.com.", dns.rdatatype.NS)
        assert servers is not None
        assert {server.target.to_text() for server in servers} == {
            "ns-1.awsdns-1.com.",
            "ns-2.awsdns-2.co.uk.",
        }
    assert addresses(zones["awsdns-1.com."], "ns-1.awsdns-1.com.") == ["198.51.100.53"]
    assert addresses(zones["awsdns-2.co.uk."], "ns-2.awsdns-2.co.uk.") == ["198.51.100.54"]


def test_every_other_zone_is_delegated_by_the_closest_one_above_it() -> None:
    zones = parse(CloudRecords())
    for name in zones:
        above = [other for other in zones if name != "." and name.endswith(f".{other}")]
        parent = max(above, key=len, default=".")
        if name == ".":
            continue
        delegation = zones[parent].get_rdataset(name, dns.rdatatype.NS)
        assert delegation is not None
        assert delegation == zones[name].get_rdataset(name, dns.rdatatype.NS)
        assert {addresses(zones[parent], server.target.to_text())[0] for server in delegation} == {
            "198.51.100.53",
            "198.51.100.54",
        }


def test_aws_apis_without_a_region_lead_to_the_same_front() -> None:
    zone = parse(CloudRecords())["amazonaws.com."]
    for name in ("iam", "route53", "sts", "s3", "*.s3"):
        assert addresses(zone, f"{name}.amazonaws.com.") == ["198.51.100.80"]
    assert zone.get_rdataset("*.amazonaws.com.", dns.rdatatype.A) is None


def test_large_receivers_have_mail_exchanges_of_other_names_with_addresses() -> None:
    zones = parse(CloudRecords())
    for domain in ("gmail.com", "outlook.com", "yahoo.com"):
        mx = zones[f"{domain}."].get_rdataset(f"{domain}.", dns.rdatatype.MX)
        assert mx is not None
        (exchange,) = (rdata.exchange.to_text() for rdata in mx)
        assert exchange == f"{LARGE_RECEIVERS[domain][0]}."
        home = ".".join(exchange.split(".")[-3:])
        assert len(addresses(zones[home], exchange)) == 1


@pytest.mark.parametrize("block_list", BLOCK_LISTS)
def test_a_block_list_has_its_test_entry_and_nobody_else(
    cloud: StubbedCloud, block_list: str
) -> None:
    zone = parse(records(cloud))[f"{block_list}."]
    assert addresses(zone, f"2.0.0.127.{block_list}.") == ["127.0.0.2"]
    assert zone.get_rdataset(f"10.113.0.203.{block_list}.", dns.rdatatype.A) is None


def test_block_lists_can_list_the_elastic_ips_or_refuse_whoever_asks(cloud: StubbedCloud) -> None:
    listing, refusing = (
        parse(records(cloud), fault)["zen.spamhaus.org."]
        for fault in ("dnsbl-listed", "dnsbl-refuses")
    )
    assert addresses(listing, "10.113.0.203.zen.spamhaus.org.") == ["127.0.0.2"]
    assert addresses(refusing, "*.zen.spamhaus.org.") == ["127.255.255.254"]
    assert refusing.get_rdataset("2.0.0.127.zen.spamhaus.org.", dns.rdatatype.A) is None


def test_spf_twice_is_the_right_record_and_another(cloud: StubbedCloud) -> None:
    zone = parse(records(cloud), "spf-twice")["example.com."]
    assert sorted(texts(zone, DOMAIN)) == ["v=spf1 ip4:203.0.113.10 -all", "v=spf1 mx -all"]


def test_another_name_in_reverse_dns_is_aws_s_own(cloud: StubbedCloud) -> None:
    zone = parse(records(cloud), "ptr-other-name")["113.0.203.in-addr.arpa."]
    pointer = zone.get_rdataset("10.113.0.203.in-addr.arpa.", dns.rdatatype.PTR)
    assert pointer is not None
    assert [p.target.to_text() for p in pointer] == ["ec2-203-0-113-10.compute-1.amazonaws.com."]


def test_dmarc_reports_about_any_domain_are_taken_by_one_receiver_only() -> None:
    zones = parse(CloudRecords())
    assert texts(zones["example.net."], "*._report._dmarc.example.net.") == ["v=DMARC1"]
    assert texts(zones["example.org."], "*._report._dmarc.example.org.") == []
