"""Labels that change neither values nor counts: read off the operators that were called, and off objects."""

from collections.abc import Callable, Iterator
from typing import Any

from benchrunner.core import arithmetic
from benchrunner.worker.validity.finding import Facts, Finding, unknown

ACTIVATIONS = {"swiglu": "silu", "gelu": "gelu", "gelu_tanh": "gelu"}
"""`model.mlp` → the operator between its matrices."""
MODES = {
    None: set(),
    "default": set(),
    "reduce-overhead": {"triton.cudagraphs"},
    "max-autotune": {"max_autotune", "triton.cudagraphs"},
    "max-autotune-no-cudagraphs": {"max_autotune"},
}
"""`compile.mode` → the settings of Inductor that it turns on."""

BOTH = ("fabric", "fsdp")
"""Engine and kind of strategy that casts by policy and autocasts too."""

Line = tuple[bool, str, str]
"""Whether it is as the label says, what that is, and what was found."""


def labels(facts: Facts) -> Finding:
    """Engine, attention kernel, activation, compile mode, optimizer kernel and way of mixing are those of the label."""
    looks: tuple[Callable[[Facts], Line | None], ...] = (_engine, _kernel, _activation, _compile_mode, _fused, _mixing)
    lines = [line for look in looks if (line := look(facts)) is not None]
    wrong = [line for line in lines if not line[0]]
    told = wrong or lines
    if not told:
        return unknown("nothing of it can be seen here")
    return Finding(
        ok=not wrong,
        expected="; ".join(wish for _, wish, _ in told),
        observed="; ".join(found for _, _, found in told),
    )


def _engine(facts: Facts) -> Line | None:
    """Fabric's wrapper is around what the loop calls, or not."""
    if facts.cell.axes["compile"] == "thunder":
        return None
    wants = facts.cell.axes["engine"].startswith("fabric")
    has = any(type(module).__module__.startswith("lightning.") for module in facts.built.model.modules())
    return has == wants, f"engine {facts.cell.axes['engine']}", "Fabric's wrapper" if has else "no wrapper of Fabric's"


def _kernel(facts: Facts) -> Line | None:
    """The fused operator that eager attention went to; compiled graphs call kernels under names of their own."""
    profile, label = facts.probes.profile, facts.cell.config.attention
    wanted = (facts.result.get("choices") or {}).get("attention") if label == "auto" else label
    if profile is None or wanted is None or facts.cell.axes["compile"] != "eager":
        return None
    seen = {name for name, count in profile.kernels.items() if count}
    # Where torch chooses, a layer without gradients may be another case than the one that was recorded.
    right = wanted in seen if label == "auto" and wanted != "explicit" else seen == {wanted} - {"explicit"}
    return right, f"attention by {wanted}", ", ".join(sorted(seen)) or "no fused operator"


def _activation(facts: Facts) -> Line | None:
    profile = facts.probes.profile
    if profile is None or not profile.activations:
        return None
    wanted = ACTIVATIONS[facts.cell.config.model.mlp]
    return set(profile.activations) == {wanted}, f"activation {wanted}", ", ".join(sorted(profile.activations))


def _compile_mode(facts: Facts) -> Line | None:
    """What Inductor was told, as the compiled functions keep it."""
    told = list(_inductor_settings(facts))
    if facts.cell.axes["compile"] != "inductor" or not told:
        return None
    mode = facts.cell.config.compile.mode
    seen = {name for settings in told for name in settings}
    right = all(settings == MODES[mode] for settings in told)
    return right, f"compile.mode {mode or 'default'}", ", ".join(sorted(seen)) or "default settings"


def _inductor_settings(facts: Facts) -> Iterator[set[str]]:
    """Of every compiled module: those of `MODES` that are on."""
    known = set().union(*MODES.values())
    for module in facts.built.model.modules():
        read = getattr(getattr(module, "_compiled_call_impl", None) or module, "get_compiler_config", None)
        settings: dict[str, Any] | None = None if read is None else read()
        if settings is not None:  # under fullgraph none are kept
            yield {name for name in known if settings.get(name)}


def _fused(facts: Facts) -> Line | None:
    """AdamW in one kernel, or operation by operation."""
    wanted = facts.cell.config.optimizer.fused
    if facts.optimizer is None or wanted is None:
        return None
    seen = {bool(group.get("fused")) for group in facts.optimizer.param_groups}
    words = {True: "fused", False: "not fused"}
    return seen == {bool(wanted)}, f"optimizer {words[bool(wanted)]}", " and ".join(words[one] for one in sorted(seen))


def _mixing(facts: Facts) -> Line | None:
    """Who casts for a mixed precision: under FSDP's policy an embedding is looked up in what is computed in."""
    profile, config = facts.probes.profile, facts.cell.config
    stored, computed = str(config.precision.param_dtype), str(config.precision.compute_dtype)
    if profile is None or not profile.tables or stored == computed or stored not in arithmetic.DTYPE_BYTES:
        return None
    if computed not in arithmetic.DTYPE_BYTES or (facts.cell.axes["engine"], config.strategy.kind) == BOTH:
        return None
    by = config.strategy.mixed_precision_by or ("policy" if config.strategy.kind == "fsdp" else "autocast")
    wanted = computed if by == "policy" else stored
    return set(profile.tables) == {wanted}, f"mixed by {by}: an embedding in {wanted}", ", ".join(profile.tables)
