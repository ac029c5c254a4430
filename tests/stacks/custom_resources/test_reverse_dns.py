"""Reverse DNS is set and seen to be set; it is reset only when the address is given up."""

from collections.abc import Callable
from typing import Any

import pytest

from stacks.custom_resources.handlers import cloudformation, reverse_dns
from stacks.custom_resources.handlers.cloudformation import Event, Refused, Resource
from tests.stacks.custom_resources.requests import aws_error, request

ALLOCATION = "eipalloc-0123456789abcdef0"
DOMAIN = "mail.example.com"


class Ec2:
    """One Elastic IP; a change of its PTR record stays PENDING for some looks at it."""

    def __init__(self, *, ptr: str | None = None, looks_pending: int = 0) -> None:
        self.ptr = ptr
        self.released = False
        self.failure: str | None = None
        self.requests: list[str] = []
        self._looks_pending = looks_pending
        self._update: dict[str, str] | None = None
        self._looks_left = 0

    def modify_address_attribute(self, **request: str) -> None:
        assert request["AllocationId"] == ALLOCATION
        self._begin("modify", request["DomainName"])

    def reset_address_attribute(self, **request: str) -> None:
        assert request == {"AllocationId": ALLOCATION, "Attribute": "domain-name"}
        self._begin("reset", None)

    def describe_addresses_attribute(self, **request: object) -> dict[str, Any]:
        assert request == {"AllocationIds": [ALLOCATION], "Attribute": "domain-name"}
        if self.released:
            raise aws_error("InvalidAllocationID.NotFound", "gone", "DescribeAddressesAttribute")
        if self._update and self._update["Status"] == "PENDING":
            if self._looks_left == 0:
                self._finish()
            self._looks_left -= 1
        address: dict[str, Any] = {"AllocationId": ALLOCATION, "PublicIp": "203.0.113.10"}
        if self.ptr:
            address["PtrRecord"] = f"{self.ptr}."
        if self._update:
            address["PtrRecordUpdate"] = self._update
        return {"Addresses": [address] if self.ptr or self._update else []}

    def _begin(self, name: str, value: str | None) -> None:
        self.requests.append(name)
        self._update = {"Value": value or "", "Status": "PENDING"}
        self._looks_left = self._looks_pending

    def _finish(self) -> None:
        assert self._update is not None
        if self.failure:
            self._update = {**self._update, "Status": "FAILED", "Reason": self.failure}
        else:
            self.ptr, self._update = self._update["Value"] or None, None


class Clock:
    """Time for so many pauses between two looks."""

    def __init__(self, pauses: int = 10) -> None:
        self.pauses_left = pauses

    def wait(self) -> bool:
        self.pauses_left -= 1
        return self.pauses_left >= 0


def _serve(kind: str, ec2: Ec2, clock: Clock | None = None) -> Resource:
    properties = {"AllocationId": ALLOCATION, "DomainName": DOMAIN}
    event = request(kind, properties, physical_id=None if kind == "Create" else ALLOCATION)
    return reverse_dns.serve(event, ec2=ec2, wait=(clock or Clock()).wait)


@pytest.mark.parametrize("kind", ["Create", "Update"])
def test_it_is_set_and_waited_for_while_pending(kind: str) -> None:
    ec2, clock = Ec2(looks_pending=3), Clock()
    assert _serve(kind, ec2, clock).physical_id == ALLOCATION
    assert ec2.ptr == DOMAIN
    assert clock.pauses_left == 10 - 3


def test_a_repeated_request_changes_nothing() -> None:
    ec2 = Ec2(ptr=DOMAIN)
    _serve("Create", ec2)
    assert ec2.requests == []


def test_a_failure_is_tried_again_while_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # AWS's resolver may remember for a while that the name pointed elsewhere.
    ec2 = Ec2(looks_pending=1)
    ec2.failure = "The A record does not resolve to the address"
    begin = Ec2._begin

    def begin_and_recover(ec2: Ec2, name: str, value: str | None) -> None:
        begin(ec2, name, value)
        if len(ec2.requests) == 3:
            ec2.failure = None

    monkeypatch.setattr(Ec2, "_begin", begin_and_recover)
    _serve("Create", ec2)
    assert ec2.ptr == DOMAIN
    assert ec2.requests == ["modify"] * 3


def test_a_finished_change_may_still_be_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    # AWS's documentation does not say that PtrRecordUpdate goes away once it is done.
    def finish(ec2: Ec2) -> None:
        assert ec2._update is not None
        ec2.ptr = ec2._update["Value"]
        ec2._update = {**ec2._update, "Status": "SUCCESSFUL"}

    monkeypatch.setattr(Ec2, "_finish", finish)
    ec2 = Ec2(looks_pending=1)
    _serve("Create", ec2)
    _serve("Update", ec2)
    assert ec2.requests == ["modify"]


def test_an_update_replaces_the_former_name() -> None:
    ec2 = Ec2(ptr="old.example.com", looks_pending=1)
    _serve("Update", ec2)
    assert ec2.ptr == DOMAIN


def test_a_failure_is_told_with_awss_reason_and_what_to_do() -> None:
    ec2 = Ec2(looks_pending=1)
    ec2.failure = "The A record does not resolve to the address"
    with pytest.raises(Refused) as raised:
        _serve("Create", ec2)
    reason = str(raised.value)
    assert "FAILED: The A record does not resolve to the address" in reason
    assert f"the A record of {DOMAIN} is seen from the Internet" in reason
    assert "deploy again" in reason


def test_a_change_that_stays_pending_ends_before_the_function_does() -> None:
    ec2, clock = Ec2(looks_pending=1000), Clock(pauses=2)
    with pytest.raises(Refused, match="deploy again when it is no longer PENDING"):
        _serve("Create", ec2, clock)


def test_lambdas_last_seconds_are_kept_for_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        def get_remaining_time_in_millis(self) -> int:
            return 1000 * (reverse_dns.RESERVE_SECONDS)

    def answer(event: Event, work: Callable[[Event], Resource]) -> None:
        with pytest.raises(Refused, match="no longer PENDING"):
            work(event)

    monkeypatch.setattr("boto3.client", lambda _service: Ec2(looks_pending=1000))
    monkeypatch.setattr("time.sleep", pytest.fail)
    monkeypatch.setattr(cloudformation, "answer", answer)
    properties = {"AllocationId": ALLOCATION, "DomainName": DOMAIN}
    reverse_dns.handler(request("Create", properties), Context())


def test_the_retry_after_that_waits_for_the_same_change() -> None:
    ec2 = Ec2(looks_pending=5)
    with pytest.raises(Refused):
        _serve("Create", ec2, Clock(pauses=1))
    _serve("Create", ec2)
    assert ec2.ptr == DOMAIN
    assert ec2.requests == ["modify"]


def test_delete_waits_until_the_address_can_be_released() -> None:
    ec2, clock = Ec2(ptr=DOMAIN, looks_pending=2), Clock()
    _serve("Delete", ec2, clock)
    assert ec2.ptr is None
    assert ec2.requests == ["reset"]
    assert clock.pauses_left == 10 - 2


def test_delete_that_stays_pending_says_to_delete_again() -> None:
    ec2 = Ec2(ptr=DOMAIN, looks_pending=1000)
    with pytest.raises(Refused, match="Delete the stack again"):
        _serve("Delete", ec2, Clock(pauses=2))


def test_delete_of_a_change_that_never_finished_resets_it() -> None:
    ec2 = Ec2(looks_pending=3)
    with pytest.raises(Refused):
        _serve("Create", ec2, Clock(pauses=1))
    _serve("Delete", ec2)
    assert ec2.requests == ["modify", "reset"]
    assert ec2.ptr is None


@pytest.mark.parametrize("ptr", [None, "other.example.com"])
def test_delete_leaves_alone_what_is_not_ours(ptr: str | None) -> None:
    ec2 = Ec2(ptr=ptr)
    _serve("Delete", ec2)
    assert ec2.requests == []
    assert ec2.ptr == ptr


def test_delete_succeeds_when_the_address_is_gone() -> None:
    ec2 = Ec2()
    ec2.released = True
    assert _serve("Delete", ec2).physical_id == ALLOCATION


def test_a_refusal_of_awss_is_not_swallowed() -> None:
    class Denying(Ec2):
        def reset_address_attribute(self, **_request: str) -> None:
            raise aws_error("UnauthorizedOperation", "denied", "ResetAddressAttribute")

    with pytest.raises(Exception, match="UnauthorizedOperation"):
        _serve("Delete", Denying(ptr=DOMAIN))
