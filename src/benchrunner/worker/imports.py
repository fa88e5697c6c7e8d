"""Importing torch and what stands on it, the larger part of what a cell costs, without the garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage is looked for inside: modules make a million objects, and next to none of them ever becomes any."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
