"""Generation that lies about tokens and cache."""

from torch import Tensor

from benchrunner.worker.model.kv_cache import KVCache
from benchrunner.worker.steps.decoding import Decoding, choose


def likeliest(logits: Tensor, temperature: float, top_k: int | None) -> Tensor:
    """What `choose` gives at temperature 0, whatever is asked for: no softmax and no draw."""
    return choose(logits, 0.0, None)


def from_all(logits: Tensor, temperature: float, top_k: int | None) -> Tensor:
    """A draw from all tokens: nothing is sorted."""
    return choose(logits, temperature, None)


class FirstLogits(Decoding):
    """The logits of the prompt choose every token; the model runs for nothing."""

    _first: Tensor

    def prefill(self, prompt: Tensor) -> None:
        """Forget those of the prompt before."""
        self.__dict__.pop("_first", None)
        super().prefill(prompt)

    def _take(self, logits: Tensor) -> None:
        self._first = vars(self).get("_first", logits)
        super()._take(self._first)


class LateCache(KVCache):
    """A token's keys and values are written after it has looked: it does not see itself."""

    def mask(self, positions: Tensor) -> Tensor | None:
        """What stands before the positions, and the first."""
        slots = self.slots[: self.shown] if self.shown is not None else self.slots
        return (slots < positions[:, None]) | (slots == 0)
