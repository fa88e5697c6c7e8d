"""The faults that BENCH_FAULT plants in a worker: their names and the grammar, for parent and worker alike."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache

from benchrunner.core.errors import ConfigError, did_you_mean
from benchrunner.core.record import PHASES

VARIABLE = "BENCH_FAULT"

DEATHS: dict[str, str] = {
    "exception": "raises a RuntimeError",
    "hostile_text": "raises a RuntimeError whose message tries to break tables, pages and terminals",
    "oom": "runs out of device memory (on CPU: of a device that is only pretended)",
    "oom_disguised": "meets a cuBLAS error with the device full (on CPU: with a pretended one)",
    "oom_host": "asks for more host memory than there can be",
    "unsupported": "raises what a library says that refuses",
    "missing": "fails to import an optional package",
    "peer_loss": "raises what a rank says that lost its peer",
    "broken_device": "breaks its device, whose every later call fails (on CPU: raises what CUDA says of that)",
    "sigkill": "kills itself with SIGKILL",
    "sigsegv": "dies of a segmentation fault",
    "exit": "exits with code 7, without a word",
    "leave": "exits with code 0, without a word",
    "hang": "sleeps for ever",
    "nan": "makes a weight NaN at the next optimizer step",
    "garbage": "overwrites its status file with garbage and exits with code 0",
    "disk_full": "can write to no file any more",
    "clock_jump": "sees the time of day a day ahead, and goes on",
    "ignore_sigterm": "ignores SIGTERM and sleeps for ever",
    "grandchild": "leaves a process in a session of its own behind and goes on",
    "flood": "writes a gigabyte to its stdout as fast as it can and goes on",
    "print_env": "prints its whole environment and goes on",
}
"""Strike when the rank enters the phase (default: build)."""

LIES: dict[str, str] = {
    "no_reduce": "gradients are not reduced over ranks",
    "no_shard": "parameters stay whole on every rank",
    "no_recompute": "activation checkpointing is left out",
    "no_convert": "no layer is converted to the low precision",
    "zero_norm": "norm weights are left at zero",
    "frozen": "a trainable parameter gets no gradient",
    "wrong_shape": "the model has one layer less than its label says",
    "recompile": "a compiled function is compiled again inside the measured window",
    "short_batch": "fewer tokens are processed than claimed",
    "same_data": "every rank sees the same samples",
    "half_sequence": "the model looks at the first half of every sample alone",
    "empty_steps": "every second step applies the gradients of the one before",
    "half_blocks": "every second block lets its input pass (forward and generate)",
    "recompute_prefix": "generation computes the whole sequence for every token, eager only",
    "other_recipe": "fp8 is scaled by another recipe",
    "other_packing": "weights are packed in fp4, which has the size of nf4",
    "other_storage": "parameters of a mixed precision are stored in what it computes in",
    "other_reduction": "gradients are reduced over ranks in bfloat16 where the label says float32",
    "no_dropout": "nothing is dropped",
    "eval_mode": "the model trains in evaluation mode",
    "other_compiler": "graphs are run by torch's own operators instead of being compiled by Inductor",
    "compiled_eager": "blocks are compiled under compile=eager",
    "one_unit": "FSDP gathers the whole model at once instead of a unit at a time",
    "other_checkpointing": "every second block is checkpointed instead of all",
    "same_batch": "every step has the data of the first",
    "same_after_first": "ranks see different samples in the first step alone",
    "one_micro_batch": "all micro-steps of a step have the samples of the first",
    "double_reduce": "gradients are summed over ranks a second time (workload=parity sees it)",
    "wrong_scale": "accumulated gradients are not divided by the number of micro-steps (workload=parity sees it)",
    "stale_recompute": "checkpointed blocks recompute something else, eager only (workload=parity sees it)",
    "wrong_linear": "converted linears give results that are off by half, eager only (workload=parity sees it)",
    "not_causal": "attention sees what follows",
    "no_positions": "queries and keys are not rotated",
    "short_window": "attention sees the last few tokens only",
    "wrong_heads": "queries read the keys and values of another group",
    "no_attention": "attention is left out: each token sees itself",
    "half_mlp": "the MLP is left out for the second half of the tokens",
    "loud_adapter": "what a finetuning method adds counts twice",
    "wrong_adapter": "a finetuning method changes other matrices or channels than it says",
    "scaled_loss": "the loss that is differentiated is three times the one reported",
    "undivided_loss": "the loss that is differentiated is not divided by the number of micro-steps",
    "stopped_keys": "no gradient passes the keys",
    "wrong_lr": "the learning rate is half of what is stated",
    "no_decay": "weights do not decay",
    "wrong_betas": "Adam's second moment forgets faster than stated",
    "no_clipping": "gradients are not clipped",
    "wrong_activation": "a gated MLP bends its gate by GELU instead of SiLU",
    "sharp_attention": "scores of attention are too large by the square root of two",
    "other_rows": "of a micro-batch only the first sample is computed as it should be",
    "late_cache": "a decoded token does not see itself: the cache is written too late",
    "half_micro_batches": "half of the micro-batches are left out and the others count twice",
    "fewer_steps": "the window has half of its steps",
    "claimed_twice": "twice as many tokens are claimed of a step",
    "greedy": "the likeliest token is taken where one should be drawn",
    "no_top_k": "tokens are drawn from all where from the likeliest is said",
    "first_logits": "the logits of the prompt choose every token",
    "few_tokens": "data have eight different tokens",
    "half_lengths": "samples are half as long as they are said to be",
    "coarse_loss": "cross-entropy is computed in bfloat16",
    "kept_weights": "4-bit weights are unpacked once and kept",
    "other_kernel": "attention runs by another kernel than the one named",
    "other_engine": "Fabric's cells are built without Fabric",
    "unfused": "a fused optimizer runs operation by operation",
    "other_sync": "gradients are reduced in every micro-step instead of the last, or the other way round",
    "other_mixing": "autocast mixes where FSDP's policy should",
    "head_compiled": "of a model compiled as a whole only the head is",
    "kept_products": "checkpointed blocks keep their products",
    "same_drops": "dropout drops the same values in every step",
    "small_weights": "weights start with half of their spread",
    "counted_twice": "a tied head counts among the parameters",
    "piled_gradients": "gradients are not cleared after an update",
    "seldom_updates": "every second step has no update",
    "idle_window": "the steps of the window have no update",
    "other_optimizer": "another update rule than stated",
}
"""Hold from before anything is built: `benchrunner.worker.faults.lies` patches the worker, whose code knows of none."""

FAULTS: dict[str, str] = DEATHS | LIES
"""Every kind of fault → what it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A planted fault: what, in which rank (None: all), on entering which phase (None: build), in which cells."""

    kind: str
    rank: int | None = None
    phase: str | None = None
    cells: str | None = None
    """A pattern (`*`, `?`, `[…]`) of slugs; None: every cell."""

    def is_planted_in(self, slug: str) -> bool:
        """Whether the cell is run under it."""
        return self.cells is None or fnmatchcase(slug, self.cells)

    def hits(self, rank: int) -> bool:
        """Whether it is planted in this rank."""
        return self.rank is None or self.rank == rank

    def fires(self, rank: int, phase: str) -> bool:
        """Whether it strikes this rank on entering this phase."""
        return self.kind in DEATHS and self.hits(rank) and phase == (self.phase or "build")


@cache
def parse_faults(text: str | None) -> tuple[Fault, ...]:
    """Faults with a comma between them, each for cells of its own; None or empty are none.

    Raises:
        ConfigError: one of them is no fault.
    """
    found = tuple(parse_fault(one) for one in (text or "").split(","))
    if len(found) > 1 and None in found:
        raise ConfigError(VARIABLE, f"{text!r} has nothing between two commas")
    return tuple(fault for fault in found if fault is not None)


def fault_in(text: str | None, slug: str) -> Fault | None:
    """The first of the faults that is planted in the cell."""
    return next((fault for fault in parse_faults(text) if fault.is_planted_in(slug)), None)


def parse_fault(text: str | None) -> Fault | None:
    """`<kind>[@rank][:phase][/cells]` as a Fault; None or empty is none.

    Raises:
        ConfigError: an unknown kind or phase, or a rank that is no number.
    """
    if not text:
        return None
    match = re.fullmatch(r"(?P<kind>[a-z_]+)(?:@(?P<rank>\d+))?(?::(?P<phase>[a-z]+))?(?:/(?P<cells>[^\s/,]+))?", text)
    if match is None:
        raise ConfigError(VARIABLE, f"{text!r} is not <kind>[@rank][:phase][/cells]")
    kind, rank, phase = match["kind"], match["rank"], match["phase"]
    if kind not in FAULTS:
        raise ConfigError(
            VARIABLE, f"no fault {kind!r}{did_you_mean(kind, FAULTS)}; `bench doctor --faults` lists them"
        )
    if phase is not None and phase not in PHASES:
        raise ConfigError(VARIABLE, f"no phase {phase!r}; allowed: {', '.join(PHASES)}")
    return Fault(kind=kind, rank=int(rank) if rank else None, phase=phase, cells=match["cells"])


def format_fault(fault: Fault | None) -> str | None:
    """The inverse of `parse_fault`."""
    if fault is None:
        return None
    rank = "" if fault.rank is None else f"@{fault.rank}"
    phase, cells = (f"{sign}{value}" if value else "" for sign, value in ((":", fault.phase), ("/", fault.cells)))
    return f"{fault.kind}{rank}{phase}{cells}"
