"""Units that numbers are shown in."""

GIB = 2**30
