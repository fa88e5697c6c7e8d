"""Is all the work done that the label claims: tokens, matrix products and attention calls."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchrunner.worker.axes.attention import attention_backend, chosen_backend
from benchrunner.worker.model.decoder import IGNORED_TARGET
from benchrunner.worker.validity import expected_work
from benchrunner.worker.validity.expected_data import count_tokens
from benchrunner.worker.validity.expected_work import Range
from benchrunner.worker.validity.finding import Facts, Finding
from benchrunner.worker.validity.profiled import StepProfile

FLOPS_TOLERANCE = 0.02
"""How far the products of a step may be from their closed form."""
GRAPH_MODES = ("reduce-overhead", "max-autotune")
"""Of Inductor: CUDA graphs replay kernels without a call, and autotuned kernels are nobody's operators."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was counted; None: nothing could be seen, and `found` says why."""

    right: bool | None
    wish: str
    found: str


def work(facts: Facts) -> Finding:
    """Tokens are those claimed, and a profiled step multiplied and attended as often, as long and as wide as claimed.

    Undecided where neither products nor attention can be seen: tokens alone are what the loop says of itself.
    """
    tokens, looks = _tokens(facts), _looks(facts)
    seen = [tokens, *(line for line in looks if line.right is not None)]
    hidden = "; ".join(line.found for line in looks if line.right is None)
    wrong = [line for line in seen if line.right is False]
    told = wrong or seen
    return Finding(
        ok=False if wrong else True if len(seen) > 1 else None,
        expected="; ".join(line.wish for line in told),
        observed="; ".join(line.found for line in told),
        note=hidden or None,
    )


def _looks(facts: Facts) -> list[Line]:
    if facts.cell.axes["workload"] == "generate":
        return _sample(facts)
    profile = facts.probes.profile
    if profile is None:
        return [Line(None, "", facts.probes.missing)]
    rank = facts.context.rank if facts.optimizer is None else 0  # all ranks probe training with the first one's data
    shapes = expected_work.probe_shapes(facts.cell, rank, facts.probes.num_micro_steps)
    return [
        _products(facts, profile, expected_work.step_product_flops(facts.cell, shapes)),
        _attention(facts, profile, expected_work.step_attention(facts.cell, shapes)),
    ]


# --- tokens


def _tokens(facts: Facts) -> Line:
    """Those that went through the model, by the loop's own account, and those that the result claims of a step."""
    claimed, meant = facts.result["tokens_per_step"], _tokens_a_step(facts)
    if not math.isclose(claimed, meant):
        return Line(False, f"{meant:g} tokens claimed of a step", f"{claimed:g}")
    if facts.output is not None:
        output = facts.output
        return Line(output.seen == output.claimed, f"{output.claimed} {output.what}", f"{output.seen:g}")
    (real, padded), (all_real, all_padded) = _processed(facts), count_tokens(facts.cell, range(facts.num_steps))
    wish = f"{all_real} tokens, {all_padded} with padding, in {facts.num_steps} steps"
    return Line((real, padded) == (all_real, all_padded), wish, f"{real} tokens, {padded} with padding")


def _tokens_a_step(facts: Facts) -> float:
    """What the label means: the mean over the window, since steps may differ."""
    sizes, num_measured = facts.cell.sizes, len(facts.result["step_times_s"])
    if facts.cell.axes["workload"] == "generate":
        return sizes.global_batch_size * facts.cell.config.generate.new_tokens
    window = range(facts.num_steps - num_measured, facts.num_steps)
    return count_tokens(facts.cell, window)[0] / max(num_measured, 1)


def _processed(facts: Facts) -> tuple[int, int]:
    """Targets and positions of all ranks."""
    mine = (
        sum(int((targets != IGNORED_TARGET).sum()) for targets in facts.targets),
        sum(tokens.numel() for tokens in facts.consumed),
    )
    real, padded = zip(*facts.exchange.gather(mine), strict=True)
    return sum(real), sum(padded)


# --- matrix products


def _products(facts: Facts, profile: StepProfile, expected: Range, what: str = "a step") -> Line:
    if hidden := _why_products_are_hidden(facts, profile):
        return Line(None, "", hidden)
    seen = float(sum(profile.product_flops.values()))
    wish = f"{_flops(expected)} of products in {what}"
    return Line(expected.holds(seen, FLOPS_TOLERANCE), wish, f"{seen:.4g} FLOPs of products")


def _flops(expected: Range) -> str:
    low, high = f"{expected.low:.4g}", f"{expected.high:.4g}"
    return f"{low} FLOPs" if low == high else f"{low} to {high} FLOPs"


def _why_products_are_hidden(facts: Facts, profile: StepProfile) -> str | None:
    config, compiler = facts.cell.config, facts.cell.axes["compile"]
    if config.precision.backend == "transformer_engine":
        return "products do not pass torch's operators (Transformer Engine)"
    if config.precision.pad:
        return "products are padded"
    if profile.num_packed_products:
        return "products do not pass torch's operators (bitsandbytes' own kernels)"
    if compiler == "eager":
        return None
    if compiler == "thunder":
        return "thunder writes products anew"
    if str(config.compile.mode).startswith(GRAPH_MODES):
        return f"products do not pass torch's operators (compile.mode={config.compile.mode})"
    if facts.cell.axes["workload"] == "generate":
        return "the compiler writes products with one token itself"
    if not profile.product_flops:
        return "products did not pass torch's operators"
    return None


# --- attention


def _attention(
    facts: Facts, profile: StepProfile, expected: Counter[tuple[int, int]], *, is_causal: bool = True
) -> Line:
    """Every call has the claimed lengths and heads; recomputed blocks call again (the check `recompute` counts)."""
    if hidden := _why_attention_is_hidden(facts, profile):
        return Line(None, "", hidden)
    wrong = _strange_call(facts, profile, expected, is_causal=is_causal)
    seen = Counter((call.query[2], call.key[2]) for call in profile.attention)
    most = 1 if facts.optimizer is None else 2
    right = all(count <= seen[lengths] <= most * count for lengths, count in expected.items())
    wish = ", ".join(f"{count} × {lengths[0]} to {lengths[1]}" for lengths, count in sorted(expected.items()))
    found = ", ".join(f"{count} × {lengths[0]} to {lengths[1]}" for lengths, count in sorted(seen.items()))
    heads = facts.cell.config.model
    return Line(
        right and wrong is None,
        f"attention of {heads.num_heads} heads to {heads.num_kv_heads}{' causally' if is_causal else ''}: {wish}",
        wrong or f"attention {found}",
    )


def _why_attention_is_hidden(facts: Facts, profile: StepProfile) -> str | None:
    config, compiler = facts.cell.config, facts.cell.axes["compile"]
    if config.attention == "explicit":
        return "attention is written out"
    if compiler == "eager":
        return None
    if not profile.attention and _attends_without_a_kernel(facts):
        return "the compiler sees attention as plain operations"
    if compiler == "thunder" and len(profile.attention) < config.model.num_layers * facts.probes.num_micro_steps:
        return "thunder spells attention out"
    if str(config.compile.mode).startswith(GRAPH_MODES) and not profile.attention:
        return f"attention is replayed without a call (compile.mode={config.compile.mode})"
    return None


def _attends_without_a_kernel(facts: Facts) -> bool:
    """`attention=math`, or what no fused kernel takes: fp32 in groups of heads on CUDA, dropout on a CPU."""
    with attention_backend(facts.cell):
        return chosen_backend(facts.cell, facts.context.device) == "math"


def _strange_call(
    facts: Facts, profile: StepProfile, expected: Counter[tuple[int, int]], *, is_causal: bool
) -> str | None:
    """The first call that is not as the shape says: batch, heads, key-value heads, head size, causality."""
    model = facts.cell.config.model
    batch, head_size = facts.cell.sizes.micro_batch_size, model.d_model // model.num_heads
    # A compiled graph calls the kernel itself, which may want a key for every query head.
    key_heads = {model.num_kv_heads} | ({model.num_heads} if facts.cell.axes["compile"] != "eager" else set())
    for call in profile.attention:
        sizes = call.query[0] == call.key[0] == batch and call.query[3] == call.key[3] >= head_size
        heads = call.query[1] == model.num_heads and call.key[1] in key_heads
        causal = call.is_causal in (None, is_causal) and not call.has_mask
        if not (sizes and heads and causal and (call.query[2], call.key[2]) in expected):
            how = {True: "causal", False: "not causal", None: "of unknown causality"}[call.is_causal]
            masked = ", under a mask" if call.has_mask else ""
            return f"attention of {list(call.query)} to {list(call.key)}, {how}{masked}"
    return None


# --- generation


def _sample(facts: Facts) -> list[Line]:
    """A sample is one prefill and a decode a token, and neither does more or less than its own."""
    sample, options = facts.probes.sample, facts.cell.config.generate
    if sample is None:
        return [Line(None, "", facts.probes.missing)]
    decodes = sample.num_tokens - 1
    calls = Line(
        (sample.num_prefills, sample.num_decodes) == (1, decodes),
        f"1 prefill and {decodes} decodes in a sample",
        f"{sample.num_prefills} prefills and {sample.num_decodes} decodes",
    )
    if calls.right is False:
        return [calls]
    length = options.prompt_length
    keys = length + sample.middle + 1
    return [
        *_part(facts, sample.prefill, expected_work.prefill_product_flops(facts.cell), (length, length)),
        *_part(facts, sample.decode, expected_work.decode_product_flops(facts.cell), (1, keys)),
    ]


def _part(facts: Facts, profile: StepProfile | None, flops: float, lengths: tuple[int, int]) -> Sequence[Line]:
    if profile is None:
        return []
    calls = Counter({lengths: facts.cell.config.model.num_layers})
    is_prefill = lengths[0] == lengths[1]
    what = "a prefill" if is_prefill else "a decode"
    hidden = facts.cell.axes["compile"] != "eager" and not is_prefill
    attention = (
        Line(None, "", "compiled, a token attends under a mask to the whole cache")
        if hidden
        else _attention(facts, profile, calls, is_causal=is_prefill)
    )
    return [_products(facts, profile, Range(flops, flops), what), attention]
