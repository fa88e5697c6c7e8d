"""A verdict on an attempt: what `judge.py` makes of evidence."""

from dataclasses import dataclass, field

from benchrunner.core.record import Grounds, Status

Reasoned = tuple[Status, str, str]
"""Status, reason code and sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A verdict."""

    status: Status
    reason_code: str | None = None
    reason: str | None = None
    flags: list[str] = field(default_factory=list)
    evidence: Grounds | None = None
