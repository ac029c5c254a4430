"""CloudFormation gets exactly one answer, and nothing that should stay secret."""

import json
import urllib.request
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from stacks.custom_resources.handlers import cloudformation
from stacks.custom_resources.handlers.cloudformation import Event, Refused, Resource
from tests.stacks.custom_resources.requests import aws_error, request

Answers = list[dict[str, Any]]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """The bodies that were PUT to the request's ResponseURL."""
    received: Answers = []

    def put(sent: urllib.request.Request, timeout: float) -> nullcontext[None]:
        assert timeout > 0
        assert sent.get_method() == "PUT"
        assert sent.full_url == "https://answers.example/presigned"
        assert isinstance(sent.data, bytes)
        received.append(json.loads(sent.data))
        return nullcontext()

    monkeypatch.setattr(urllib.request, "urlopen", put)
    return received


def _raising(error: Exception) -> Callable[[Event], Resource]:
    def work(_event: Event) -> Resource:
        raise error

    return work


def test_success_is_answered_with_the_resource(answers: Answers) -> None:
    made = Resource(physical_id="made", data={"Record": "text"})
    cloudformation.answer(request("Create", {}), lambda _event: made)
    assert answers == [
        {
            "StackId": "arn:aws:cloudformation:us-east-1:111122223333:stack/postern-prod/1",
            "RequestId": "request-1",
            "LogicalResourceId": "Resource",
            "Status": "SUCCESS",
            "PhysicalResourceId": "made",
            "Data": {"Record": "text"},
        }
    ]


def test_a_refusal_is_answered_with_its_own_words(answers: Answers) -> None:
    event = request("Update", {}, physical_id="made")
    cloudformation.answer(event, _raising(Refused("Write another selector.")))
    assert answers[0]["Status"] == "FAILED"
    assert answers[0]["Reason"] == "Write another selector."
    assert answers[0]["PhysicalResourceId"] == "made"


def test_a_refusal_of_aws_is_answered_with_the_action_and_awss_words(answers: Answers) -> None:
    error = aws_error("Throttling", "slow down", "GenerateDataKeyPair")
    cloudformation.answer(request("Create", {}), _raising(error))
    assert answers[0]["Reason"] == "GenerateDataKeyPair: Throttling: slow down"


def test_an_unforeseen_error_tells_where_but_not_what(
    answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = "-----BEGIN PRIVATE KEY-----"
    cloudformation.answer(request("Create", {}), _raising(ValueError(f"cannot store {stored}")))
    assert "ValueError in work" in answers[0]["Reason"]
    assert stored not in json.dumps(answers) + capsys.readouterr().out


def test_the_presigned_address_is_not_logged(
    answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    cloudformation.answer(request("Create", {}), _raising(Refused("No.")))
    assert answers
    assert "presigned" not in capsys.readouterr().out


def test_a_long_reason_still_fits_into_an_answer(answers: Answers) -> None:
    cloudformation.answer(request("Create", {}), _raising(Refused("long " * 2000)))
    assert len(json.dumps(answers[0])) < 4096


def test_a_permission_that_is_not_known_everywhere_yet_is_waited_for(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)

    def work(_event: Event) -> Resource:
        if len(pauses) < 3:
            raise aws_error("AccessDeniedException", "not authorized", "GenerateDataKeyPair")
        return Resource(physical_id="made")

    cloudformation.answer(request("Create", {}), work)
    assert answers[0]["Status"] == "SUCCESS"
    assert pauses == [1, 2, 4]


def test_a_permission_that_is_missing_is_told_in_the_end(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)

    error = aws_error("UnauthorizedOperation", "not authorized", "ModifyAddressAttribute")
    cloudformation.answer(request("Create", {}), _raising(error))
    assert answers[0]["Status"] == "FAILED"
