"""Tables → CSV. Text from logs can break none of it."""

import pandas as pd

from benchrunner.core.text import single_line


def to_csv(frame: pd.DataFrame) -> str:
    """CSV with NA for unknown numbers and six significant digits; line breaks inside a field become spaces."""
    flat = frame.copy()
    for name in flat.columns:
        if flat[name].dtype == object or pd.api.types.is_string_dtype(flat[name]):
            flat[name] = [single_line(str(value)) for value in flat[name]]
    return flat.to_csv(index=False, na_rep="NA", float_format="%.6g", lineterminator="\n")
