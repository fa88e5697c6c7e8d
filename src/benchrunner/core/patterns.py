"""The pattern language of rules and exclusions: what a value must look like (top of conf/compat.yaml)."""

import operator
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from packaging.version import InvalidVersion, Version

_COMPARISON = re.compile(r"(<=|>=|<|>)\s*([0-9]+(?:\.[0-9]+)*)")


def read_pattern(pattern: Any) -> Callable[[Any], bool]:
    """The predicate that a pattern of conf/compat.yaml stands for."""
    if isinstance(pattern, list):
        options = [read_pattern(item) for item in pattern]
        return lambda value: any(holds(value) for holds in options)
    if isinstance(pattern, str):
        return _read_text(pattern)
    return lambda value: isinstance(value, bool) == isinstance(pattern, bool) and value == pattern


def _read_text(pattern: str) -> Callable[[Any], bool]:
    if pattern.startswith("!"):
        inner = _read_text(pattern[1:])
        return lambda value: not inner(value)
    comparison = _COMPARISON.fullmatch(pattern)
    if comparison:
        compares, bound = _OPERATORS[comparison[1]], comparison[2]
        return lambda value: _compare(value, compares, bound)
    names = pattern.split("|")
    return lambda value: any(fnmatchcase(as_text(value), name) for name in names)


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _compare(value: Any, compares: Callable[[Any, Any], bool], bound: str) -> bool:
    """Numbers compare as numbers, text as versions; what is neither (None, `assumed`) fits no comparison."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and bound.count(".") < 2:
        return compares(value, float(bound))
    # YAML reads the version 2.11 as a number: beside a bound such as 2.11.1 it is a version again
    release = _release(str(value)) if is_number or isinstance(value, str) else None
    return release is not None and compares(release, _release(bound))


@cache
def _release(version: str) -> Version | None:
    """The release that a version belongs to (`2.11.0+cu130` and `2.11.0a0` → 2.11); None if it is no version.

    What a vendor builds before or beside a release holds what the release holds: its rules fit it.
    """
    try:
        return Version(Version(version).base_version)
    except InvalidVersion:
        return None


def as_text(value: Any) -> str:
    """A value as patterns and reasons spell it: `true`, `false`, `null`, else its text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)
