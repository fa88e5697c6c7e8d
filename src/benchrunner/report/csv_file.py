"""Tables → CSV. Text from logs can break none of it."""

import re

import pandas as pd

from benchrunner.core.text import single_line

FORMULA = re.compile(r"[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""What a spreadsheet takes a field for a formula by, wide forms included."""


def to_csv(frame: pd.DataFrame) -> str:
    """CSV with NA for unknown numbers and six significant digits; line breaks inside a field become spaces."""
    flat = frame.copy()
    for name in flat.columns:
        if flat[name].dtype == object or pd.api.types.is_string_dtype(flat[name]):
            flat[name] = [_field(value) for value in flat[name]]
    return flat.to_csv(index=False, na_rep="NA", float_format="%.6g", lineterminator="\n")


def _field(value: object) -> str:
    """One line, which no spreadsheet takes for a formula; a number stays one."""
    text = single_line(str(value))
    return f"'{text}" if FORMULA.match(text) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
