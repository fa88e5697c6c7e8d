"""Small cells, plans and records that several tests share."""

from dataclasses import asdict

from benchrunner.core.axes import AXES
from benchrunner.core.cell import Cell, derive_sizes, identity, make_slug
from benchrunner.core.record import PHASES, Record
from benchrunner.core.schema import typed_config
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.plan import PlannedCell
from benchrunner.report.results import Row

MODEL = {
    "name": "debug", "description": "", "num_layers": 4, "d_model": 128, "num_heads": 4, "num_kv_heads": 2,
    "d_ff": 352, "vocab_size": 512, "max_seq_len": 128, "tie_embeddings": False, "norm": "rmsnorm", "norm_eps": 1e-5,
    "mlp": "swiglu", "positions": "rotary", "rotary_fraction": 1.0, "rope_base": 10000.0, "bias": False,
    "head_bias": False, "parallel_residual": False, "shared_norm": False, "dropout": 0.0, "init_std": 0.02,
    "num_parameters": None, "source": "",
}  # fmt: skip
STRATEGIES = {"single": ("single", None), "ddp": ("ddp", None), "fsdp_stage2": ("fsdp", 2), "fsdp_stage3": ("fsdp", 3)}

CPU = Hardware(
    name="cpu", device_type="cpu", device_name="Some CPU", num_devices=1, memory_bytes=16 * 2**30, torch="2.13.0+cpu",
    packages={"bitsandbytes": "0.50.2", "torchao": "0.18.0", "thunder": None, "transformer_engine": None,
              "triton": None},
    cc="/usr/bin/gcc", cxx="/usr/bin/g++", python_headers=True,
)  # fmt: skip
H200 = Hardware(
    name="h200-sxm-141gb", device_type="cuda", device_name="NVIDIA H200", num_devices=4, memory_bytes=150754820096,
    compute_capability="9.0", peak_flops={"bf16": 989e12}, torch="2.11.0+cu130",
    packages={"bitsandbytes": "0.50.2", "torchao": "0.18.0", "thunder": "0.2.6", "transformer_engine": "2.9",
              "triton": "3.6"},
    cc="/usr/bin/gcc", cxx="/usr/bin/g++", python_headers=True,
)  # fmt: skip


def make_config(axes, leaves):
    """A whole configuration, for the chosen options."""
    return typed_config(make_tree(axes, leaves))


def make_tree(axes, leaves):
    """The same as plain data, as Hydra composes it."""
    kind, stage = STRATEGIES[axes["strategy"]]
    mixed = axes["precision"].endswith("-mixed")
    config = {
        "model": {**MODEL, "name": axes["model"]},
        "workload": {"name": axes["workload"], "lengths": "fixed", "min_length": 10, "longest": None,
                     "loss_chunk_tokens": None},
        "strategy": {"name": axes["strategy"], "kind": kind, "stage": stage, "wrap": "block", "backward_prefetch": None,
                     "accumulation_sync": None, "mixed_precision_by": None},
        "precision": {"name": axes["precision"], "param_dtype": "float32" if mixed else "bfloat16",
                      "compute_dtype": "bfloat16", "reduce_dtype": "bfloat16", "backend": "torch",
                      "recipe": {"fp8": "delayed", "fp8-torchao": "tensorwise"}.get(axes["precision"]),
                      "scope": "blocks" if axes["precision"].startswith("fp8") else "all", "pad": False},
        "compile": {"name": axes["compile"], "mode": None, "scope": "block", "dynamic": False, "fullgraph": False,
                    "cache": "cold"},
        "activation_checkpointing": {
            "name": axes["activation_checkpointing"],
            "every": "1/2" if axes["activation_checkpointing"] == "selective" else None,
        },
        "engine": {"name": axes["engine"]},
        "optimizer": {"name": axes["optimizer"], "lr": 1e-4, "weight_decay": 0.1, "clip_norm": None},
        "launcher": {"name": "local"},
        "hardware": {"name": "auto"},
        "generate": {"unit": "model", "prompt_length": 6, "new_tokens": 200, "temperature": 1.0, "top_k": None,
                     "num_samples": 10},
        "measure": {"warmup_steps": 5, "steps": 20},
        "limits": {f"{phase}_s": None for phase in PHASES}, "exclusive": False, "retries": 1, "brake": 5,
        "sweep": {"include": [], "exclude": []},
        "attention": "auto", "micro_batch_size": 1, "global_batch_size": None, "seq_len": None, "devices": None,
        "nodes": 1, "seed": 0, "timeout_s": 1800.0, "memory_limit_gib": None, "compat": "enforce",
        "predict": "analytic", "out_dir": "outputs",
    }  # fmt: skip
    for key, value in leaves.items():
        *parents, leaf = key.split(".")
        section = config
        for parent in parents:
            section = section[parent]
        section[leaf] = value
    return config


def make_cell(visible_devices=2, leaves=None, **axes):
    """A cell of the given options; everything else is what a bare `bench` means."""
    chosen = (
        dict(zip(AXES, ("debug", "train", "single", "bf16", "eager", "none", "native", "adamw"), strict=True)) | axes
    )
    leaves = leaves or {}
    config = make_config(chosen, leaves)
    cell_id = identity(chosen, leaves)
    return Cell(
        cell_id=cell_id,
        config_digest="0" * 12,
        slug=make_slug(chosen, leaves, cell_id),
        axes=chosen,
        overrides=leaves,
        config=config,
        sizes=derive_sizes(config, visible_devices),
    )


def make_record(cell, status="ok", code=None, reason=None, **changes):
    """A record of that cell."""
    fields = {
        "cell_id": cell.cell_id, "config_digest": cell.config_digest, "slug": cell.slug, "axes": dict(cell.axes),
        "overrides": dict(cell.overrides), "sizes": asdict(cell.sizes), "status": status, "reason_code": code,
        "reason": reason, "command": "bench " + " ".join(cell.words()), "attempt": 1,
        "started_at": "2026-11-21T03:00:00+00:00", "wall_s": 12.5, "num_parameters": 919168,
        "num_trainable_parameters": 919168,
    }  # fmt: skip
    if status in ("ok", "invalid"):
        fields["metrics"] = {
            "step_time_median_s": 0.0123456, "step_time_p10_s": 0.012, "step_time_p90_s": 0.013,
            "step_time_min_s": 0.0119, "tokens_per_second_per_device": 10368.1, "mfu": None,
            "model_flops_per_second_per_device": 5.5e10, "peak_memory_allocated_bytes": 734003200,
            "peak_memory_reserved_bytes": 800000000, "num_alloc_retries": 0, "compile_time_s": None,
        }  # fmt: skip
    return Record(**(fields | changes))


def plan_cell(cell, verdict="run", code=None, reason=None, flags=()):
    """A planned cell."""
    return PlannedCell(cell=cell, verdict=verdict, reason_code=code, reason=reason, flags=list(flags))


def make_row(cell, record=None, hardware=CPU, sweep="cli/one", problem=None, **planned):
    """A row of the tables."""
    return Row(
        planned=plan_cell(cell, **planned),
        record=record,
        sweep=sweep,
        hardware=hardware.name,
        device_name=hardware.device_name,
        torch=hardware.torch,
        problem=problem,
    )


def make_rows():
    """A small sweep in which most things happened."""
    ok, oom = make_cell(), make_cell(strategy="ddp")
    refused = make_cell(strategy="fsdp_stage3", compile="inductor")
    ruled, waiting = make_cell(strategy="ddp", precision="nf4"), make_cell(strategy="fsdp_stage3")
    failed = make_cell(compile="inductor")
    flagged = make_cell(strategy="ddp", compile="inductor")
    return [
        make_row(ok, make_record(ok)),
        make_row(oom, make_record(oom, "oom", "oom.device", "rank 1 ran out of memory: 80.1 of 80.0 GiB")),
        make_row(refused, make_record(refused, "unsupported", "runtime.dtype", "the library says | no\n<b>never</b>")),
        make_row(ruled, verdict="unsupported", code="rule.nf4_train", reason="nf4 weights cannot train"),
        make_row(waiting),
        make_row(failed, make_record(failed, "failed", "failed.exception", "rank 0 raised `ValueError`: x_y * 2")),
        make_row(flagged, make_record(flagged, flags=["unstable", "graph_breaks"])),
    ]
