"""A sample of generation as the window runs it, watched: its prefill and a decode from its middle are profiled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchrunner.worker.validity.profiled import StepProfile, profiled

if TYPE_CHECKING:
    from benchrunner.worker.steps.decoding import Decoding


@dataclass(slots=True, kw_only=True)
class SampleProfile:
    """What a sample did."""

    num_tokens: int
    """New tokens that it was to make, the prefill's included."""
    num_prefills: int = 0
    num_decodes: int = 0
    prefill: StepProfile | None = None
    decode: StepProfile | None = None

    @property
    def middle(self) -> int:
        """The decode that is profiled, counted from 0."""
        return (self.num_tokens - 1) // 2


def profile_sample(
    run: Callable[[], None], decoding: "Decoding", num_tokens: int, device: torch.device
) -> SampleProfile:
    """Run a sample of so many new tokens and watch what it asks of `decoding`.

    The methods are replaced on this one object and for this one sample: what is measured calls its own.
    """
    found = SampleProfile(num_tokens=num_tokens)
    prefill, step = decoding.prefill, decoding.step
    own: dict[str, Any] = vars(decoding)

    def watched_prefill(prompt: Tensor) -> None:
        found.num_prefills += 1
        if found.prefill is None:
            found.prefill = profiled(lambda: prefill(prompt), device)
        else:
            prefill(prompt)

    def watched_step() -> None:
        found.num_decodes += 1
        if found.num_decodes == found.middle + 1:
            found.decode = profiled(step, device)
        else:
            step()

    with _in_place({"prefill": watched_prefill, "step": watched_step}, own):
        run()
    return found


@contextmanager
def _in_place(watched: dict[str, Any], own: dict[str, Any]) -> Iterator[None]:
    """Inside, an object's own names are the watched ones."""
    before = {name: own[name] for name in watched if name in own}
    own.update(watched)
    try:
        yield
    finally:
        for name in watched:
            del own[name]
        own.update(before)
