"""What a window of many steps asks for beside its time: data drawn before it, and numbers kept of each step."""

from benchrunner.core.cell import Cell
from benchrunner.core.rank_file import RANK_FILE_BYTES
from benchrunner.core.record import RECORD_BYTES

NUM_WARMUP_SAMPLES = 3
"""`generate` counts its samples itself (worker/workloads/generate.py)."""

NUMBER_BYTES = 32
"""At most, of a number on a line of its own in a rank file or a record."""
NUMBERS_A_STEP, NUMBERS_A_SAMPLE = 3, 5
"""A time, and the loss of each window where one is measured twice; of `generate` a time, and its parts by name."""

TOKEN_BYTES = 8


def num_steps(cell: Cell) -> tuple[int, int]:
    """Steps of warm-up and window; of `generate`, samples."""
    if cell.axes["workload"] == "generate":
        return NUM_WARMUP_SAMPLES, max(1, cell.config.generate.num_samples - 1)
    return cell.config.measure.warmup_steps, cell.config.measure.steps


def steps_key(cell: Cell) -> str:
    """The key that says how long is measured."""
    return "generate.num_samples" if cell.axes["workload"] == "generate" else "measure.steps"


def most_steps(cell: Cell) -> int:
    """So many steps of a window fit the file of a rank, and those of all ranks a record."""
    numbers = NUMBERS_A_SAMPLE if cell.axes["workload"] == "generate" else NUMBERS_A_STEP
    return min(RANK_FILE_BYTES, RECORD_BYTES // cell.sizes.world_size) // (NUMBER_BYTES * numbers)


def data_bytes(cell: Cell) -> int:
    """At least, of the tokens of all steps on one device: they are drawn before the window and kept for the checks."""
    if cell.axes["workload"] == "parity":
        return 0
    return sum(num_steps(cell)) * TOKEN_BYTES * _tokens_a_step(cell)


def _tokens_a_step(cell: Cell) -> int:
    sizes, workload = cell.sizes, cell.config.workload
    if cell.axes["workload"] == "generate":
        return sizes.micro_batch_size * int(cell.config.generate.prompt_length)
    length = sizes.seq_len if workload.lengths == "fixed" else int(workload.min_length)
    return sizes.accumulation_steps * sizes.micro_batch_size * (length + 1)
