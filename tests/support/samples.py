"""Small cells, plans and records that several tests share."""

from dataclasses import asdict, replace
from functools import cache

import yaml

from benchrunner.config.hydra_app.loader import schema_defaults
from benchrunner.core.axes import AXES
from benchrunner.core.cell import Cell, config_digest, derive_sizes, identity, make_slug
from benchrunner.core.paths import config_dir
from benchrunner.core.record import Record
from benchrunner.core.schema import typed_config
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.plan import PlannedCell
from benchrunner.report.row import Row


def read_yaml(name):
    """A file of conf/."""
    return yaml.safe_load((config_dir() / f"{name}.yaml").read_text(encoding="utf-8"))


USUAL = {
    group: name for entry in read_yaml("config")["defaults"] if isinstance(entry, dict) for group, name in entry.items()
}
"""Group → the option of a bare `bench`."""

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
    """A whole configuration as `bench` composes it."""
    return typed_config(make_tree(axes, leaves))


def make_tree(axes, leaves):
    """The same as plain data: the schema's defaults, option files, changed leaves."""
    config = defaults() | {group: option(group, name) for group, name in (USUAL | axes).items()}
    for key, value in leaves.items():
        config = changed(config, key.split("."), value)
    return config


@cache
def defaults():
    """The schema's defaults, as plain data."""
    return schema_defaults()


@cache
def option(group, name):
    """The section of a group when this option is chosen. Shared by all cells: never to be changed."""
    return defaults()[group] | read_yaml(f"{group}/{name}")


def changed(tree, path, value):
    """A copy of nested dicts with one leaf changed; what lies beside the path is shared."""
    head, *rest = path
    assert head in tree, f"no such key: {head}"
    return {**tree, head: changed(tree[head], rest, value) if rest else value}


def make_cell(visible_devices=2, leaves=None, **axes):
    """A cell of the given options; everything else is what a bare `bench` means."""
    chosen = {group: axes.get(group, USUAL[group]) for group in AXES}
    leaves = leaves or {}
    config = make_config(chosen, leaves)
    cell_id = identity(chosen, leaves)
    return Cell(
        cell_id=cell_id,
        config_digest=config_digest(config),
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
        "reason": reason, "command": "bench " + " ".join(cell.as_overrides()), "attempt": 1,
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


def _snapshot_cell(**axes):
    """A cell whose digest does not change with every new key of the configuration."""
    return replace(make_cell(**axes), config_digest="0" * 12)


def make_rows():
    """A small sweep in which most things happened."""
    ok, oom = _snapshot_cell(), _snapshot_cell(strategy="ddp")
    refused = _snapshot_cell(strategy="fsdp_stage3", compile="inductor")
    ruled, waiting = _snapshot_cell(strategy="ddp", precision="nf4"), _snapshot_cell(strategy="fsdp_stage3")
    failed = _snapshot_cell(compile="inductor")
    flagged = _snapshot_cell(strategy="ddp", compile="inductor")
    return [
        make_row(ok, make_record(ok, checks={"shape": {"ok": True}, "sharded": {"ok": None, "note": "of one"}})),
        make_row(oom, make_record(oom, "oom", "oom.device", "rank 1 ran out of memory: 80.1 of 80.0 GiB")),
        make_row(refused, make_record(refused, "unsupported", "runtime.dtype", "the library says | no\n<b>never</b>")),
        make_row(ruled, verdict="unsupported", code="rule.nf4_train", reason="nf4 weights cannot train"),
        make_row(waiting),
        make_row(failed, make_record(failed, "failed", "failed.exception", "rank 0 raised `ValueError`: x_y * 2")),
        make_row(flagged, make_record(flagged, flags=["unstable", "graph_breaks"])),
    ]


NOT_OK = {
    "invalid": ("validity.precision", "the label says bf16, and the products of the profiled step are in fp32"),
    "oom": ("oom.device", "rank 0 ran out of memory in the first step: 139.8 of 139.8 GiB"),
    "oom:2": ("oom.host", "the kernel ended rank 1 for lack of host memory"),
    "unsupported": ("runtime.dtype", "the library says | no\n<b>never</b>"),
    "unsupported:2": ("missing.thunder", "lightning-thunder is not installed"),
    "timeout": ("timeout.compile", "no progress in the phase compile for 120 s (limits.compile_s)"),
    "failed": ("failed.exception", "rank 0 raised `ValueError`: x_y * 2"),
    "failed:2": ("failed.signal", "rank 1 was ended by SIGSEGV"),
    "skipped": ("skipped.budget", "it would not end within the budget"),
}
"""Status (and which of its reason codes) → code and sentence, as a record has them."""

NOT_LAUNCHED = (
    ("unsupported", "rule.nf4_train", "nf4 weights cannot train"),
    ("skipped", "skipped.devices", "needs 8 devices a node, 4 visible"),
    ("skipped", "skipped.predicted_oom", "parameters, gradients and optimizer state alone need 161.0 GiB a device"),
    ("skipped", "skipped.excluded", "not today"),
)
"""Verdict, code and sentence of cells that a plan does not run."""


def make_every_status():
    """A sweep with every status that a cell can have, most of them with more than one reason code."""
    rows = make_rows()[:1] + make_rows()[-1:]
    for number, (status, (code, reason)) in enumerate(NOT_OK.items()):
        cell = replace(make_cell(strategy="ddp", leaves={"seed": number + 1}), config_digest="0" * 12)
        checks = {"precision": {"ok": False}, "shape": {"ok": True}} if status == "invalid" else {}
        changes = {"checks": checks, "attempt": 0 if status == "skipped" else 1}
        rows.append(make_row(cell, make_record(cell, status.partition(":")[0], code, reason, **changes)))
    for number, (verdict, code, reason) in enumerate(NOT_LAUNCHED):
        cell = replace(make_cell(precision="nf4", leaves={"seed": number}), config_digest="0" * 12)
        rows.append(make_row(cell, verdict=verdict, code=code, reason=reason))
    waiting = replace(make_cell(compile="inductor"), config_digest="0" * 12)
    return [*rows, make_row(waiting)]
