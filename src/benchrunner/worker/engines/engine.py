"""Whose code spreads the model, mixes precisions and steps."""

from collections.abc import Callable

from benchrunner.worker.context import Context
from benchrunner.worker.engines.built import Built
from benchrunner.worker.engines.native import build_native


def build(context: Context) -> Built:
    """Build the cell's model by its engine."""
    return ENGINES[context.cell.axes["engine"]](context)


def build_by_fabric(context: Context) -> Built:
    """Build the cell's model by Lightning Fabric, which takes seconds to import."""
    from benchrunner.worker.engines import fabric

    return fabric.build(context)


ENGINES: dict[str, Callable[[Context], Built]] = {
    "native": build_native,
    "fabric": build_by_fabric,
    "fabric-model-parallel": build_by_fabric,
}
"""Engine → whose code spreads the model, mixes precisions and steps."""
