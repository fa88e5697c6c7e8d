"""Every storage that a step makes and lets go under fake tensors, in order: the peak, and what the allocator needs."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchrunner.core.caching_allocator import Event, Steps

WORKSPACE_BYTES = 33 * 2**20
"""cuBLAS keeps 32 MiB on Hopper for each of forward and backward pass; the batches of a window are small beside that.
(Seen as what is left between the sum of all tensors and measured peaks: 0.06 GiB in training, 0.03 without gradients.)
"""

MAKES_ACTIVATIONS = frozenset({"forward", "prefill", "decode"})
"""Phases of which a tensor counts as an activation; of others it is a temporary."""


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, every new storage is counted until it dies; FSDP frees and fills its buffers by resizing them."""

    def __init__(self, num_passes: int = 2) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: dict[str, int] = {}
        self.total = self.peak = 0
        self.at_peak: dict[str, int] = {}
        self.phase = self.peak_phase = "rest"
        self._held: list[Event] = []
        self._step: list[Event] = []
        self._left: list[int] = []
        self._sizes: dict[int, tuple[str, int]] = {}
        self._known: set[int] = set()
        self._is_running = False
        self._resize: Callable[..., Any] = torch.UntypedStorage.resize_
        for number in range(num_passes):
            self._take(-number - 1, "workspaces", WORKSPACE_BYTES)

    # --- what is there

    def leave(self, category: str, sizes: Sequence[int]) -> None:
        """Bytes of each tensor that the first step leaves for all others."""
        self._left += sizes
        self._change(category, sum(sizes))

    def hold(self, category: str, tensors: Iterable[torch.Tensor]) -> None:
        """Tensors that are there before the step."""
        for tensor in tensors:
            self._meet(tensor.untyped_storage(), category)

    def enter(self, phase: str) -> None:
        """From here on tensors are made in this phase."""
        self.phase = phase

    def result(self) -> dict[str, Any]:
        """The peak and its terms, what the allocator reserves if it can, and the least that it can do with."""
        steps = Steps(held=self._held, step=self._step, left=self._left)
        return {
            "peak_memory_bytes": self.peak,
            "reserved_memory_bytes": steps.replay().peak_reserved,
            "least_memory_bytes": steps.least_bytes(),
            "phase": self.peak_phase,
            "terms": {name: size for name, size in self.at_peak.items() if size},
        }

    # --- what comes and goes

    def __enter__(self) -> "Tape":
        tape = self

        def resize(storage: torch.UntypedStorage, size: int) -> Any:
            resized = tape._resize(storage, size)
            tape._resized(storage, int(size))
            return resized

        torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign, assignment]
        self._is_running = True
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(kind not in (torch.Tensor, FakeTensor, torch.nn.Parameter) for kind in types):
            return NotImplemented  # a subclass takes itself apart first, and its parts come back here
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._meet(tensor.untyped_storage(), None)
        return result

    def _meet(self, storage: torch.UntypedStorage, category: str | None) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        weakref.finalize(storage, self._gone, key)
        self._take(key, category or self._category(), storage.nbytes())

    def _category(self) -> str:
        return "activations" if self.phase in MAKES_ACTIVATIONS else "temporaries"

    def _resized(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key not in self._known:
            self._meet(storage, "communication")
            return
        self._release(key)
        self._take(key, "communication", size)

    def _take(self, key: int, category: str, size: int) -> None:
        if size:
            self._sizes[key] = category, size
            self._note(key, size)
            self._change(category, size)

    def _gone(self, key: int) -> None:
        self._known.discard(key)
        self._release(key)

    def _release(self, key: int) -> None:
        category, size = self._sizes.pop(key, ("", 0))
        if size:
            self._note(key, 0)
            self._change(category, -size)

    def _note(self, key: int, size: int) -> None:
        (self._step if self._is_running else self._held).append((key, size))

    def _change(self, category: str, num_bytes: int) -> None:
        self.live[category] = self.live.get(category, 0) + num_bytes
        self.total += num_bytes
        if self.total > self.peak:
            self.peak, self.at_peak, self.peak_phase = self.total, dict(self.live), self.phase


def _tensors(result: Any) -> list[torch.Tensor]:
    found = result if isinstance(result, (list, tuple)) else [result]
    return [one for one in found if isinstance(one, torch.Tensor)]
