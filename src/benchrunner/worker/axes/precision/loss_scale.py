"""The loss scale of float16 training, and how often it was too large."""

import torch
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

from benchrunner.core.rank_result import Choices


class CountingScaler(torch.amp.GradScaler):
    """torch's gradient scaler, which counts the steps that it skipped without asking the device during the run.

    With a fused optimizer nothing here waits for the device: the kernel itself skips the update when a gradient was
    not finite. Under FSDP the check is reduced over the ranks, since each sees a part of the gradients only.
    """

    def __init__(self, device: str, *, enabled: bool) -> None:
        super().__init__(device, enabled=enabled)
        self._num_skipped: torch.Tensor | None = None

    def update(self, new_scale: float | torch.Tensor | None = None) -> None:
        """Set the scale of the next step; it falls exactly when this step was skipped."""
        if not self.is_enabled():
            return
        assert self._scale is not None, "no loss was scaled"
        before = self._scale.clone()
        super().update(new_scale)
        skipped = self._scale < before
        self._num_skipped = skipped.int() if self._num_skipped is None else self._num_skipped + skipped

    def choices(self) -> Choices:
        """What to record when all steps are done (asks the device)."""
        if not self.is_enabled():
            return {}
        num_skipped = 0 if self._num_skipped is None else int(self._num_skipped)
        return {"loss_scale": self.get_scale(), "num_skipped_steps": num_skipped}


class CountingShardedScaler(CountingScaler, ShardedGradScaler):
    """The same for FSDP1, whose shards are plain tensors: where it unscales them itself it asks the other ranks."""
