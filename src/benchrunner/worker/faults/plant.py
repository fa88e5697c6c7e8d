"""The one door by which a fault enters a rank: nothing that is measured knows of it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from benchrunner.core.faults import LIES, Fault
from benchrunner.worker.faults import deaths
from benchrunner.worker.imports import uncollected

if TYPE_CHECKING:
    from benchrunner.worker.context import Context


def planted(fault: Fault | None, context: "Context") -> AbstractContextManager[None]:
    """Inside, the rank has the fault if it is its own: a death waits for its phase, a lie takes hold of the worker's
    modules, and so of whatever is built and run meanwhile.

    Raises:
        RuntimeError: on entering, a lie finds nothing in the cell to strike.
    """
    if fault is None or not fault.hits(context.rank):
        return nullcontext()
    if fault.kind not in LIES:
        return _awaited(fault, context)
    with uncollected():
        from benchrunner.worker.faults import lies
    return lies.told(fault.kind, context)


@contextmanager
def _awaited(fault: Fault, context: "Context") -> Iterator[None]:
    """Inside, the death strikes on entering its phase, at once if that is the phase that the rank is in."""

    def strike(phase: str) -> None:
        if fault.fires(context.rank, phase):
            deaths.fire(fault.kind, context)

    context.on_phase.append(strike)
    try:
        strike(context.status.phase)
        yield
    finally:
        context.on_phase.remove(strike)
