"""The judge of the filters is judged first, by AWS's own examples."""

import json

import pytest

from tests.stacks.filter_patterns import UnsupportedPattern, matches, value

LINE = json.dumps({"event": "UpdateTrail", "latency": 50, "ratio": 0.5, "policy": 1})


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ('{ $.event = "UpdateTrail" }', True),
        ('{ $.event = "Update" }', False),
        ('{ $.event != "UpdateTrail" }', False),
        ('{ $.event != "Update" }', True),
        ('{ $.missing = "UpdateTrail" }', False),
        ("{ $.latency >= 50 }", True),
        ("{ $.latency > 50 }", False),
        ("{ $.latency < 50.5 }", True),
        ("{ $.ratio <= 0.4 }", False),
        ("{ $.missing >= 0 }", False),
        ("{ $.missing NOT EXISTS }", True),
        ("{ $.event NOT EXISTS }", False),
        # () > && > ||
        ('{ $.latency = 50 || $.policy = 2 && $.event = "x" }', True),
        ('{ ($.latency = 50 || $.policy = 2) && $.event = "x" }', False),
        ('{ ($.missing NOT EXISTS) || ($.missing != "5.1") }', True),
        ('{ ($.policy = 2) && ($.missing != "5.1") }', False),
    ],
)
def test_a_documented_pattern_does_what_aws_says(pattern: str, expected: bool) -> None:
    assert matches(pattern, LINE) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        "$.latency = 50",
        "{ $.latency = 50",
        "{ $.latency = 50 } { $.policy = 1 }",
        '{ $.event = "Update*" }',
        "{ $.event = Update* }",
        "{ $.event = %Trail% }",
        "{ $.event EXISTS }",
        "{ $.event IS TRUE }",
        '{ $.event > "UpdateTrail" }',
        "{ $.list[0] = 1 }",
        "{ $.latency = 50 & $.policy = 1 }",
        '[a, b = "x"]',
        "UpdateTrail",
        "{ }",
        "",
    ],
)
def test_what_this_does_not_know_is_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedPattern):
        matches(pattern, LINE)


def test_what_aws_does_not_say_is_refused() -> None:
    with pytest.raises(UnsupportedPattern, match="does not say"):
        matches('{ $.missing != "5.1" }', LINE)
    with pytest.raises(UnsupportedPattern, match="compared with"):
        matches("{ $.event = 5 }", LINE)


def test_a_line_that_is_not_json_does_not_match() -> None:
    assert not matches("{ $.missing NOT EXISTS }", "to=<a@b.example>, stat=Sent")
    assert not matches("{ $.missing NOT EXISTS }", '"outcome"')


def test_a_value_is_a_number_or_the_lines_own() -> None:
    assert value("1", LINE) == 1
    assert value("$.ratio", LINE) == 0.5
    with pytest.raises(UnsupportedPattern, match="no number"):
        value("$.event", LINE)
