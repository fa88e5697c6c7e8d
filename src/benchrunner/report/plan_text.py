"""A plan as people read it: what would run and why not, what is predicted, and what all cells share."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from benchrunner.core import arithmetic
from benchrunner.core.schema import ModelConfig
from benchrunner.plan.costs import expected_row_s
from benchrunner.plan.plan import ModelCard, Plan
from benchrunner.plan.predict import Prediction
from benchrunner.report import formatting
from benchrunner.report.content import shared_sentences
from benchrunner.report.results import results_table
from benchrunner.report.row import NONE, Row
from benchrunner.report.shared_settings import IDENTIFYING

NUMBERS = (
    "first probe", "peak GiB", "fit", "step ms", "tokens/s/device", "MFU %", "limited by", "predicted by", "flags",
)  # fmt: skip
"""Columns of a plan that no cell is told apart by."""


def plan_table(plan: Plan) -> pd.DataFrame:
    """The plan as text: verdict, labels, prediction, reason."""
    frame = formatting.labels(results_table(_plan_rows(plan), (*IDENTIFYING, "nodes", "left_out")))
    frame.insert(0, "verdict", [planned.verdict for planned in plan.cells])
    predicted = [planned.predicted or {} for planned in plan.cells]
    optional = {
        "first probe": [str(one.get("micro_batch_size") or NONE) for one in predicted],
        "peak GiB": [peak_text(one) for one in predicted],
        "fit": [str(one.get("fit") or NONE).replace("_", " ") for one in predicted],
        "step ms": [_milliseconds(one) for one in predicted],
        "tokens/s/device": [formatting.number(one.get("tokens_per_second_per_device")) for one in predicted],
        "MFU %": [_percent(one.get("mfu")) for one in predicted],
        "limited by": [one.get("limited_by") or NONE for one in predicted],
        "predicted by": _methods(predicted),
        "flags": [" ".join(planned.flags) or NONE for planned in plan.cells],
    }
    for name in NUMBERS:
        texts = optional[name]
        if set(texts) - {formatting.UNKNOWN, NONE}:
            frame[name] = texts
    frame["reason"] = [_verdict_reason(planned.reason_code, planned.reason) for planned in plan.cells]
    return frame


def peak_text(predicted: Prediction) -> str:
    """The peak with its margin, or as the bound that it is."""
    text = formatting.gib(predicted.get("peak_memory_bytes"))
    if text == formatting.UNKNOWN:
        return text
    margin = predicted.get("margin")
    return f"≥ {text}" if predicted.get("bound") == "lower" else f"{text} ± {margin:.0%}" if margin else text


def _milliseconds(predicted: Prediction) -> str:
    """The step's time, and the interval that should hold it nine times out of ten."""
    seconds = predicted.get("step_time_s")
    if seconds is None:
        return formatting.UNKNOWN
    low, high = predicted.get("step_time_low_s"), predicted.get("step_time_high_s")
    bounds = f" ({formatting.number(1e3 * low)}–{formatting.number(1e3 * high)})" if low and high else ""
    return formatting.number(1e3 * seconds) + bounds


def _percent(share: float | None) -> str:
    return formatting.number(None if share is None else 100 * share)


def _methods(predicted: Sequence[Prediction]) -> list[str]:
    """How each was predicted, where that is not how everything is."""
    methods = [one.get("method") or NONE for one in predicted]
    return methods if set(methods) - {"analytic"} else [NONE] * len(methods)


def _plan_rows(plan: Plan) -> list[Row]:
    here = plan.hardware
    return [
        Row(
            planned=planned,
            record=None,
            sweep="",
            hardware="",
            device_name=here.device_name,
            torch=here.torch,
            card=plan.cards.get(planned.cell.axes["model"]),
        )
        for planned in plan.cells
    ]


def folded(frame: pd.DataFrame) -> pd.DataFrame:
    """A reason that stood before is named by its code alone."""
    seen: set[str] = set()
    texts = []
    for text in frame["reason"]:
        texts.append(f"{text.partition(':')[0]}: as above" if text and text in seen else text)
        seen.add(text)
    return frame.assign(reason=texts)


def plan_counts(plan: Plan) -> str:
    """`16 run, 20 unsupported, at most about 25 min`: as if one ran after the other."""
    verdicts = Counter(planned.verdict for planned in plan.cells)
    running = [planned for planned in plan.cells if planned.verdict == "run"]
    expected_s = sum(expected_row_s(planned, plan.hardware.device_type) for planned in running)
    about = f", at most about {_rough_time(expected_s)}" if running else ""
    return ", ".join(f"{number} {verdict}" for verdict, number in verdicts.most_common()) + about


def _rough_time(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"


def plan_shared(plan: Plan) -> list[str]:
    """What all planned cells have in common, and what is left of models that were changed."""
    results = results_table(_plan_rows(plan), (*IDENTIFYING, "model", "workload", "left_out"))
    return [
        *shared_sentences(results),
        *_against_cards(plan),
        *(f"Note: {note}." for note in plan.notes),
        *_notes(plan),
    ]


def _notes(plan: Plan) -> list[str]:
    """What predictions leave out, and of how many cells."""
    notes = Counter(note for one in plan.cells if (note := (one.predicted or {}).get("note")))
    return [f"Predictions of {count} of {len(plan.cells)} cells: {note}." for note, count in notes.items()]


def _against_cards(plan: Plan) -> list[str]:
    """`llama2-7b: 0.667 B parameters, 6.74 B on its card`, a line a model."""
    models = {planned.cell.axes["model"]: planned.cell.config.model for planned in plan.cells}
    return [f"{name}: {_parameters(model, plan.cards.get(name))}." for name, model in models.items()]


def _parameters(model: ModelConfig, card: ModelCard | None) -> str:
    """How many there are, and how many the model's card says, which is another number where layers were cut."""
    own = arithmetic.num_parameters(model)
    claimed = card["num_parameters"] if card else model.num_parameters
    said = f"{_count(own)} parameters"
    if claimed is None:
        return said
    return f"{said}, as on its card" if own == claimed else f"{said}, {_count(claimed)} on its card"


def _count(number: int) -> str:
    return f"{number / 1e9:.3g} B" if number >= 1e8 else f"{number / 1e6:.3g} M"


def _verdict_reason(code: str | None, reason: str | None) -> str:
    return f"{code}: {reason}" if code else ""
