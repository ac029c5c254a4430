"""CloudWatch Logs' filter patterns for JSON, as far as this project's filters use them.

Follows https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/matching-terms-json-log-events.html.
Whatever else a pattern has raises UnsupportedPattern, and so does a line for which AWS does not say
what the pattern does: a test must not decide that.
"""

import json
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<punctuation>&&|\|\||[(){}])
      | (?P<selector>\$\.[a-z_][a-z0-9_]*)
      | (?P<operator>!=|>=|<=|=|>|<)
      | (?P<text>"[^"*%\\]*")            # without the wildcard, a regular expression or an escape
      | (?P<number>-?\d+(?:\.\d+)?)
      | (?P<words>NOT\s+EXISTS)
    )""",
    re.VERBOSE,
)
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
Line = Mapping[str, Any]
# None where AWS does not say: `!=` on a key that is not there.
_Condition = Callable[[Line], bool | None]


class UnsupportedPattern(Exception):
    """The pattern, or what it does with a line, is beyond what AWS documents and this knows."""


def matches(pattern: str, text: str) -> bool:
    """Whether the line `text` of a log matches; one that is not a JSON object does not."""
    condition = _Parser(pattern).parse()
    line = _json_object(text)
    if line is None:
        return False
    result = condition(line)
    if result is None:
        raise UnsupportedPattern(f"AWS does not say whether {pattern} matches {text}")
    return result


def value(metric_value: str, text: str) -> float:
    """What a matching line counts for: a number as it is, or the line's own at `$.key`."""
    if not metric_value.startswith("$."):
        return float(metric_value)
    line = _json_object(text)
    assert line is not None
    found = line[metric_value.removeprefix("$.")]
    if not _is_number(found):
        raise UnsupportedPattern(f"{metric_value} of {text} is no number")
    return float(found)


def _json_object(text: str) -> Line | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _is_number(found: object) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)


class _Parser:
    """`()` before `&&` before `||`."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(pattern.rstrip()):
            match = _TOKEN.match(pattern, position)
            if match is None:
                raise UnsupportedPattern(f"{pattern}: from {pattern[position:]!r}")
            assert match.lastgroup is not None
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            position = match.end()

    def parse(self) -> _Condition:
        self._expect("{")
        condition = self._any()
        self._expect("}")
        if self._tokens:
            raise UnsupportedPattern(f"{self._pattern}: something follows")
        return condition

    def _any(self) -> _Condition:
        parts = [self._all()]
        while self._take("||"):
            parts.append(self._all())
        return lambda line: _any_of([part(line) for part in parts])

    def _all(self) -> _Condition:
        parts = [self._one()]
        while self._take("&&"):
            parts.append(self._one())
        return lambda line: _all_of([part(line) for part in parts])

    def _one(self) -> _Condition:
        if self._take("("):
            condition = self._any()
            self._expect(")")
            return condition
        key = self._next("selector").removeprefix("$.")
        if self._tokens and self._tokens[0][0] == "words":
            self._tokens.pop(0)
            return lambda line: key not in line
        sign = self._next("operator")
        kind, written = self._tokens.pop(0) if self._tokens else ("", "")
        if kind == "number":
            return lambda line: _compare(sign, line, key, float(written))
        if kind == "text" and sign in ("=", "!="):
            return lambda line: _compare(sign, line, key, written.strip('"'))
        raise UnsupportedPattern(f"{self._pattern}: {sign} {written}")

    def _take(self, punctuation: str) -> bool:
        if self._tokens and self._tokens[0] == ("punctuation", punctuation):
            self._tokens.pop(0)
            return True
        return False

    def _expect(self, punctuation: str) -> None:
        if not self._take(punctuation):
            raise UnsupportedPattern(f"{self._pattern}: no {punctuation} where one should be")

    def _next(self, kind: str) -> str:
        if not self._tokens or self._tokens[0][0] != kind:
            raise UnsupportedPattern(f"{self._pattern}: no {kind} where one should be")
        return self._tokens.pop(0)[1]


def _compare(sign: str, line: Line, key: str, wanted: str | float) -> bool | None:
    if key not in line:
        return None if sign == "!=" else False
    found = line[key]
    if isinstance(wanted, str) != isinstance(found, str) or not isinstance(
        found, str | int | float
    ):
        raise UnsupportedPattern(f"{key} is {found!r}, compared with {wanted!r}")
    return _COMPARE[sign](found, wanted)


def _any_of(results: list[bool | None]) -> bool | None:
    return True if True in results else None if None in results else False


def _all_of(results: list[bool | None]) -> bool | None:
    return False if False in results else None if None in results else True
