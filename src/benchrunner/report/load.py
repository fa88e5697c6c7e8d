"""Sweeps → a DataFrame: `benchrunner.load("outputs/latest")`, for notebooks and scripts."""

import os
from pathlib import Path

import pandas as pd

from benchrunner.core.errors import UsageError
from benchrunner.core.paths import SweepPaths
from benchrunner.report.write import read_sweep, tables_of


def load(*directories: str | os.PathLike[str]) -> pd.DataFrame:
    """The results of one or more sweeps, a row a planned cell, with the columns and types of results.csv.

    Unknown numbers are NA. Of a cell that stands in several sweeps the latest attempt is kept.

    Raises:
        UsageError: no directory was given.
        SweepDirError: one of them is no sweep.
    """
    if not directories:
        raise UsageError("load needs the directory of a sweep, e.g. load('outputs/latest')")
    return tables_of([read_sweep(SweepPaths(Path(directory))) for directory in directories]).results
