"""benchrunner: which combinations of model, workload, strategy and precision work, how fast, and is the number true."""

__version__ = "0.1.0"
