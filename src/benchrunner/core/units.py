"""Units that numbers are shown in."""

GIB = 2**30

MIB = 2**20
