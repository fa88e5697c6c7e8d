"""The groups that identify a cell, and the keys that do not: the order of every table stands on them."""

AXES = (
    "model",
    "workload",
    "strategy",
    "precision",
    "compile",
    "activation_checkpointing",
    "engine",
    "optimizer",
)
"""The groups that identify a cell, in the order of every table."""


GROUPS = (*AXES, "launcher", "hardware", "predict")
"""Every group that has option files."""


NOT_IDENTITY = frozenset(
    {
        "launcher",
        "hardware",
        "measure",
        "limits",
        "sweep",
        "timeout_s",
        "exclusive",
        "retries",
        "repeats",
        "brake",
        "compat",
        "predict",
        "out_dir",
    }
)
"""Top-level keys that change how a cell is run or judged, but not which cell it is."""


PREDICT_ONLY = "only"
"""The option of `predict` under which a cell is its prediction alone, and nothing is launched."""


OF_A_PREDICTION = frozenset({"predict", "hardware"})
"""Top-level keys that tell such cells apart all the same: what is asked, and of which machine."""
