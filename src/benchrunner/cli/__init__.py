"""The command line: overrides → command → exit code."""
