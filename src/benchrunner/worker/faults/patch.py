"""Names of the worker's modules and entries of its registries, replaced for a while."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass(frozen=True, slots=True)
class Patch:
    """What stands under one name until it is put back."""

    names: dict[Any, Any]
    """A registry, or the namespace of a module."""
    name: Any
    """One that is there: what was renamed is a KeyError, and no lie that strikes nothing."""
    value: Any

    def undone(self) -> "Patch":
        """The patch that puts back what is there now."""
        return Patch(self.names, self.name, self.names[self.name])


def in_module(module: ModuleType, name: str, value: Any) -> Patch:
    """A patch of a module's function, class or constant, for whoever looks it up in that module."""
    return Patch(vars(module), name, value)


@contextmanager
def applied(patches: Sequence[Patch]) -> Iterator[None]:
    """Inside, the patches are in place."""
    originals = [patch.undone() for patch in patches]
    _put(patches)
    try:
        yield
    finally:
        _put(originals)


def _put(patches: Sequence[Patch]) -> None:
    for patch in patches:
        patch.names[patch.name] = patch.value


def spared(module: ModuleType, name: str, patches: Sequence[Patch]) -> Patch:
    """A function of a module made to run as if `patches`, which are not in place yet, never were."""
    function: Callable[..., Any] = vars(module)[name]
    originals = [patch.undone() for patch in patches]

    def run(*arguments: Any) -> Any:
        with applied(originals):
            return function(*arguments)

    return in_module(module, name, run)
