"""A sweep held to its lock: what failed unexpectedly, passed unexpectedly, changed, is missing or is unknown to it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from benchrunner.compare.lock_file import Expected, LockFile
from benchrunner.compare.side import MeasuredCell, Side

Kind = Literal["unexpected failure", "unexpected pass", "another reason", "missing", "not in the lock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A cell that is not as the lock has it."""

    kind: Kind
    slug: str
    expected: str
    """`ok`, `oom (oom.device)`; `nothing` of a cell that the lock does not have."""
    found: str
    reason: str = ""
    """In a sentence, of a cell that is not ok."""

    @property
    def line(self) -> str:
        """`unexpected failure: SLUG: expected ok, found oom (oom.device): …`."""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.kind}: {self.slug}: expected {self.expected}, found {self.found}{why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What came of holding a sweep to its lock."""

    title: str
    lock: str
    """Where the lock is."""
    num_as_expected: int
    num_expected: int
    deviations: list[Deviation]
    notes: list[str]
    slugs: list[str]
    """Of the cells that are as expected, for a list of all."""

    @property
    def has_passed(self) -> bool:
        """Whether every cell is as expected, and there is one."""
        return not self.deviations and self.num_as_expected > 0

    @property
    def headline(self) -> str:
        """`PASS: 20 of 20 cells of smoke/… are as sweeps/smoke.lock expects`."""
        verdict = "PASS" if self.has_passed else "FAIL"
        return (
            f"{verdict}: {self.num_as_expected} of {self.num_expected} cells of {self.title} are as {self.lock} expects"
        )


def verify(side: Side, lock: LockFile, place: str) -> Verification:
    """Hold every cell of the sweep, and every cell of the lock, to each other; `place` names the lock."""
    deviations = list(_deviations(side, lock))
    odd = {one.slug for one in deviations}
    fine = [one["cell"] for one in lock["cells"] if _slug_now(side, one) not in odd]
    return Verification(
        title=side.title,
        lock=place,
        num_as_expected=len(fine),
        num_expected=len(lock["cells"]),
        deviations=deviations,
        notes=[*side.notes, *_hardware_note(side, lock)],
        slugs=fine,
    )


def _slug_now(side: Side, expected: Expected) -> str:
    """A slug may be worded anew; the id stays."""
    found = side.cells.get(expected["cell_id"])
    return found.slug if found else expected["cell"]


def _deviations(side: Side, lock: LockFile) -> Iterator[Deviation]:
    for expected in lock["cells"]:
        found = side.cells.get(expected["cell_id"])
        kind = _kind(expected, found)
        if kind is not None:
            yield Deviation(
                kind=kind,
                slug=_slug_now(side, expected),
                expected=_said(expected["status"], expected["reason_code"]),
                found=_said(found.status, found.reason_code) if found else "no such cell",
                reason=found.reason if found else "",
            )
    known = {one["cell_id"] for one in lock["cells"]}
    for cell_id, cell in side.matrix.items():
        if cell_id not in known:
            found_now = _said(cell.status, cell.reason_code)
            yield Deviation(
                kind="not in the lock", slug=cell.slug, expected="nothing", found=found_now, reason=cell.reason
            )


def _kind(expected: Expected, found: MeasuredCell | None) -> Kind | None:
    if found is None or not found.is_settled:
        return "missing"
    if found.status == "ok" or expected["status"] == "ok":
        if found.status == expected["status"]:
            return None
        return "unexpected pass" if found.status == "ok" else "unexpected failure"
    same = (found.status, found.reason_code) == (expected["status"], expected["reason_code"])
    return None if same else "another reason"


def _said(status: str, code: str | None) -> str:
    return f"{status} ({code})" if code else status


def _hardware_note(side: Side, lock: LockFile) -> list[str]:
    here = side.plan.hardware.name
    return [] if here == lock["hardware"] else [f"the lock is of hardware {lock['hardware']}, the sweep of {here}"]
