"""What a sweep comes to, as data: the fastest and the smallest cell of a group, and why others are no result."""

from dataclasses import dataclass, field

import pandas as pd

from benchrunner.core.units import GIB
from benchrunner.plan.labels import SEPARATOR
from benchrunner.plan.verdict import PREDICTED_ONLY
from benchrunner.report import formatting

SPEED, PEAK = "tokens_per_second_per_device", "peak_memory_allocated_bytes"

SEVERITY = ("failed", "timeout", "invalid", "oom", "unsupported", "skipped")
"""What is read first of what is no result."""


@dataclass(slots=True, kw_only=True)
class Unmeasured:
    """The cells that are not ok for one reason code."""

    status: str
    code: str
    cells: dict[str, list[str]] = field(default_factory=dict)
    """Sentence → the cells that it is said of, by their labels."""

    @property
    def num_cells(self) -> int:
        """Of all sentences."""
        return sum(map(len, self.cells.values()))


def unmeasured(results: pd.DataFrame) -> list[Unmeasured]:
    """The cells that are not ok, by reason code, what is most serious first; but for those to be predicted alone."""
    groups: dict[tuple[str, str], Unmeasured] = {}
    columns = (results[name] for name in ("status", "reason_code", "reason", "cell_id"))
    for status, code, reason, cell_id, label in zip(*columns, formatting.cell_labels(results), strict=True):
        if status != "ok" and code != PREDICTED_ONLY:
            group = groups.setdefault((status, code), Unmeasured(status=status, code=code))
            group.cells.setdefault(reason, []).append(f"{label} ({cell_id[:6]})")
    return sorted(groups.values(), key=lambda group: SEVERITY.index(group.status))


def group_names(results: pd.DataFrame) -> list[str]:
    """What may be compared: the same model and workload."""
    pairs = zip(results["model_label"], results["workload"], strict=True)
    return [f"{model} {workload}" for model, workload in pairs]


def best_cells(results: pd.DataFrame, most: int) -> list[str]:
    """Of at most so many groups a sentence: the fastest cell and the smallest, and how they compare."""
    frame = results.assign(group=group_names(results), label=formatting.cell_labels(results))
    timed = frame[frame[SPEED].notna()]
    groups = [_without_its_name(part) for _, part in timed.groupby("group", sort=False)]
    said = [_best(part, f"{name}: " if len(groups) > 1 else "") for part in groups[:most] for name in part["group"][:1]]
    return said + ([f"Groups that are in the report, too: {len(groups) - most}."] if len(groups) > most else [])


def _without_its_name(part: pd.DataFrame) -> pd.DataFrame:
    """Labels without the model and workload, which all cells of a group share and its name says."""
    named = {part["model_label"].iloc[0], part["workload"].iloc[0]}
    kept = [[word for word in label.split(SEPARATOR) if word not in named] for label in part["label"]]
    return part.assign(label=[SEPARATOR.join(words) or label for words, label in zip(kept, part["label"], strict=True)])


def _best(part: pd.DataFrame, named: str) -> str:
    best = _extreme(part, SPEED, largest=True)
    memory = "" if pd.isna(best[PEAK]) else f" in {best[PEAK] / GIB:.2f} GiB a device"
    speed = f"{formatting.significant(float(best[SPEED]))} tokens/s/device{memory}"
    return f"{named}{best['label']}, {speed}{_against_first(part, best)}{_smallest(part, best)}."


def _against_first(part: pd.DataFrame, best: pd.Series) -> str:
    """How much faster than the first cell of the group, which is the baseline of the report."""
    first = part.iloc[0]
    if first["slug"] == best["slug"] or not float(first[SPEED]):
        return ""
    return f", {float(best[SPEED]) / float(first[SPEED]):.2f} × {_differing(first['label'], best['label'])}"


def _smallest(part: pd.DataFrame, best: pd.Series) -> str:
    known = part[part[PEAK].notna()]
    if len(known) < 2 or pd.isna(best[PEAK]):
        return ""
    least = _extreme(known, PEAK, largest=False)
    if least["slug"] == best["slug"]:
        return "; it is the smallest, too"
    memory = f"{least[PEAK] / GIB:.2f} GiB ({float(least[PEAK]) / float(best[PEAK]):.2f} ×)"
    return (
        f"; the smallest is {_differing(least['label'], best['label'])} in {memory} "
        f"at {float(least[SPEED]) / float(best[SPEED]):.2f} × its speed"
    )


def _differing(label: str, named: str) -> str:
    """What of a label the one that was named before does not say."""
    words = [word for word in label.split(" · ") if word not in named.split(" · ")]
    return " · ".join(words) or label


def _extreme(part: pd.DataFrame, name: str, *, largest: bool) -> pd.Series:
    values = part[name].astype(float).to_numpy()
    return part.iloc[int(values.argmax() if largest else values.argmin())]


def broke(results: pd.DataFrame, most: int = 5) -> str:
    """How many cells are no result and why, the most frequent reasons first; apart from them those that cannot be."""
    found = sorted(unmeasured(results), key=lambda group: -group.num_cells)
    ran = [group for group in found if group.status not in ("skipped", "unsupported")]
    said = f"{_num_cells(ran)} of {len(results)} cells: {_reasons(ran, most)}." if ran else "Nothing that was run."
    impossible = [group for group in found if group.status == "unsupported"]
    return said + (f" What cannot be: {_reasons(impossible, most)}." if impossible else "")


def _num_cells(groups: list[Unmeasured]) -> int:
    return sum(group.num_cells for group in groups)


def _reasons(groups: list[Unmeasured], most: int) -> str:
    parts = [f"{group.num_cells} {group.status} ({group.code})" for group in groups[:most]]
    more = len(groups) - most
    return ", ".join(parts) + (f" and {more} more reason{'s' * (more > 1)}" if more > 0 else "")
