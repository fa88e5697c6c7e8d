"""What every workload returns of a rank, around its measured window."""

from benchrunner.core.rank_result import RankResult
from benchrunner.worker.context import Context
from benchrunner.worker.engines.built import Built
from benchrunner.worker.measure import memory_limit
from benchrunner.worker.measure.meters import describe_device
from benchrunner.worker.steps.counts import flops_block


def rank_result(context: Context, built: Built, window: RankResult) -> RankResult:
    """What every workload returns of a rank, around the measured window."""
    cell = context.cell
    tokens = cell.sizes.global_batch_size * cell.sizes.seq_len
    cap: RankResult = {"memory_cap": memory_limit.CAP} if memory_limit.CAP else {}
    return {
        "workload": cell.axes["workload"],
        "device": describe_device(context.device),
        "num_parameters": built.num_parameters,
        "num_trainable_parameters": built.num_trainable_parameters,
        "tokens_per_step": tokens,
        "padded_tokens_per_step": tokens,
        "samples_per_step": cell.sizes.global_batch_size,
        "flops": flops_block(cell),
        **window,
        **cap,
    }
