"""benchrunner: which combinations of model, workload, strategy and precision work, how fast, and is the number true."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import pandas as pd

__version__ = "0.1.0"


def load(*directories: str | os.PathLike[str]) -> "pd.DataFrame":
    """The results of one or more sweeps as a DataFrame: see `report/load.py`, imported only when it is called.

    Raises:
        UsageError: no directory was given.
        SweepDirError: one of them is no sweep.
    """
    return cast("pd.DataFrame", import_module("benchrunner.report.load").load(*directories))
