"""Is a cell that lies caught: every planted lie through `bench`, the verdict, and the check that named it.

    python benchmarks/planted_lies.py                on all visible GPUs; cells of several devices need two
    python benchmarks/planted_lies.py --out FILE     into a file too
    python benchmarks/planted_lies.py --budget 8m    as many as that time has room for
    python benchmarks/planted_lies.py --after FILE   those that an earlier document has not caught
    python benchmarks/planted_lies.py --cpu          the same with small cells on 2 CPU ranks

A lie runs to its end and prints plausible numbers (`bench doctor --faults` lists them). Caught: every cell is `invalid`
and the check which is there for the lie says no. That healthy cells pass is what sweeps show. All are cells of one
sweep, each with a fault of its own, so that devices are kept busy and torch is imported once.
"""

import argparse
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fault_table
import yaml
from victim import BENCH, new_sweep, visible_devices

from benchrunner.core.faults import LIES

WIDE = ["model=llama2-7b", "model.num_layers=2", "measure.warmup_steps=2", "measure.steps=4"]
"""The full width, embedding and head: tolerances are tried at real sizes."""
SMALL = ["model.num_layers=2", "model.vocab_size=256", "seq_len=32", "measure.steps=2", "measure.warmup_steps=1"]
PARITY = ["workload=parity", "model=debug", "measure.steps=1"]
SEED = re.compile(r"\bseed=(\d+)")

NAMED = ("workload", "strategy", "precision", "compile", "activation_checkpointing")
USUAL = ("train", "eager", "none")
"""Not said of a cell."""
DEFAULTS = {"workload": "train", "strategy": "single", "compile": "eager", "activation_checkpointing": "none"}
"""Of a cell that says nothing else; every one says its precision."""

ATTENTION = ("not_causal", "no_positions", "short_window", "wrong_heads", "no_attention")
GRADIENTS = ("scaled_loss", "stopped_keys")
UPDATES = ("wrong_lr", "wrong_betas", "no_clipping", "other_optimizer")
CLIPPED = "optimizer.clip_norm=0.01"
PROMPTED = "workload.adapter_start_layer=1"
GENERATION = "workload=generate generate.new_tokens=8 generate.num_samples=3"
LONG = "measure.steps=16"
"""A window in which a rule can be told from chance."""
FLAT = "strategy=fsdp_stage3 devices=2 engine=fabric precision=bf16"
"""FSDP1: what trains and what is frozen lie in one parameter, and gradients are whole for a moment only."""
SEVERAL = "strategy=ddp,fsdp_stage2,fsdp_stage3 devices=2"
CELLS: list[tuple[str, str, str]] = [
    ("no_reduce", f"{SEVERAL} precision=bf16", "gradients_reduced"),
    ("no_reduce", "strategy=ddp,fsdp_stage3 devices=2 precision=fp8", "gradients_reduced"),
    ("no_shard", "strategy=fsdp_stage2,fsdp_stage3 devices=2 precision=bf16", "sharded"),
    ("no_recompute", "activation_checkpointing=full precision=bf16 compile=eager,inductor", "recompute"),
    ("no_recompute", "activation_checkpointing=selective precision=bf16,fp8", "recompute"),
    ("no_convert", "precision=bf16-mixed,fp8,fp8-torchao", "precision"),
    ("no_convert", "workload=lora,generate precision=nf4", "precision"),
    ("zero_norm", "strategy=single,fsdp_stage3 precision=bf16", "first_loss"),
    ("frozen", "strategy=single,fsdp_stage3 precision=bf16", "trains"),
    ("wrong_shape", "precision=bf16", "shape"),
    ("recompile", "precision=bf16 compile=inductor", "compiled"),
    ("short_batch", "precision=bf16", "work"),
    *((lie, "precision=bf16 compile=eager,inductor", "function") for lie in ATTENTION),
    *((lie, "precision=bf16 workload=generate", "function") for lie in ATTENTION),
    *((lie, "precision=fp32 workload=forward", "function") for lie in (*ATTENTION, "half_mlp")),
    *((lie, "precision=nf4,bf16 workload=lora", "function") for lie in ("loud_adapter", "wrong_adapter", "not_causal")),
    *((lie, f"precision=fp32 workload=adapter {PROMPTED}", "function") for lie in ("loud_adapter", "wrong_adapter")),
    *((lie, "precision=bf16 strategy=ddp,fsdp_stage3 devices=2", "function") for lie in GRADIENTS),
    ("undivided_loss", "precision=bf16 global_batch_size=2 micro_batch_size=1", "function"),
    ("no_positions", "precision=bf16 engine=fabric", "function"),
    ("no_positions", "strategy=fsdp_stage3 devices=2 precision=bf16 workload=forward,generate", "function"),
    ("not_causal", "strategy=fsdp_stage3 devices=2 precision=bf16 engine=fabric-model-parallel", "function"),
    ("not_causal", "strategy=fsdp_stage3 devices=2 precision=bf16-mixed,fp8-torchao", "function"),
    ("loud_adapter", "strategy=fsdp_stage3 devices=2 precision=nf4 workload=lora", "function"),
    *((lie, f"{FLAT} workload=train,lora", "function") for lie in ("not_causal", "half_mlp", "scaled_loss")),
    ("loud_adapter", f"{FLAT} workload=lora", "function"),
    ("half_sequence", f"{FLAT} workload=lora", "work"),
    ("no_recompute", f"{FLAT} workload=train,lora activation_checkpointing=full", "recompute"),
    ("same_drops", f"{FLAT} workload=lora", "mode"),
    *(
        (lie, f"precision={precision} {CLIPPED}", "optimizer")
        for precision in ("bf16", "bf16-mixed")
        for lie in UPDATES
    ),
    *((lie, "precision=bf16-mixed optimizer=sgd", "optimizer") for lie in ("wrong_lr", "no_decay", "other_optimizer")),
    ("no_decay", "precision=bf16-mixed", "optimizer"),
    ("half_sequence", "strategy=single,fsdp_stage3 precision=bf16 compile=eager,inductor", "work"),
    ("half_sequence", "workload=lora,forward precision=nf4", "work"),
    ("half_sequence", "engine=fabric precision=bf16", "work"),
    ("half_sequence", "engine=fabric-model-parallel strategy=fsdp_stage3 devices=2 precision=bf16", "work"),
    ("half_blocks", "workload=forward,generate precision=bf16,nf4", "work"),
    ("recompute_prefix", f"{GENERATION} precision=bf16,nf4", "work"),
    ("empty_steps", f"{LONG} precision=bf16 compile=eager,inductor", "steps"),
    ("other_recipe", "precision=fp8-torchao precision.recipe=tensorwise,rowwise", "formats"),
    ("other_recipe", "precision=fp8 precision.recipe=delayed,current compile=eager,inductor", "formats"),
    ("other_packing", "workload=lora,generate precision=nf4,nf4-dq", "formats"),
    ("other_packing", "workload=lora precision=nf4 engine=fabric", "formats"),
    ("other_storage", "precision=bf16-mixed strategy=single,ddp engine=native,fabric", "formats"),
    ("other_reduction", f"{SEVERAL} precision=bf16-mixed", "formats"),
    ("other_reduction", "strategy=fsdp_stage3 devices=2 precision=fp32 compile=inductor", "formats"),
    ("no_dropout", "precision=bf16 model.dropout=0.1 compile=eager,inductor", "mode"),
    ("no_dropout", "workload=lora precision=bf16,nf4", "mode"),
    ("eval_mode", "workload=train,lora,adapter_v2 precision=bf16 compile=eager,inductor", "mode"),
    ("other_compiler", "precision=bf16 compile=inductor compile.scope=block,model", "compiled"),
    ("compiled_eager", "precision=bf16 workload=train,lora,forward", "compiled"),
    ("one_unit", "strategy=fsdp_stage2,fsdp_stage3 devices=2 precision=bf16 compile=eager,inductor", "sharded"),
    ("one_unit", "strategy=fsdp_stage3 devices=2 engine=fabric-model-parallel precision=bf16", "sharded"),
    ("other_checkpointing", "activation_checkpointing=full precision=bf16,fp8 compile=eager,inductor", "recompute"),
    ("same_data", "strategy=ddp devices=2 precision=bf16", "data"),
    ("same_after_first", "strategy=ddp,fsdp_stage3 devices=2 precision=bf16", "data"),
    ("same_batch", "workload=train,lora,forward,generate precision=bf16", "data"),
    ("same_batch", "engine=fabric precision=bf16 compile=eager,inductor", "data"),
    ("one_micro_batch", "global_batch_size=2 precision=bf16", "data"),
    *((lie, "precision=bf16 compile=eager,inductor", "function") for lie in ("wrong_activation", "sharp_attention")),
    *(
        (lie, "precision=bf16,nf4 workload=forward,generate", "function")
        for lie in ("wrong_activation", "sharp_attention")
    ),
    ("other_rows", "precision=bf16 workload=train,forward,generate micro_batch_size=2", "function"),
    ("late_cache", f"{GENERATION} precision=bf16,nf4", "function"),
    ("half_micro_batches", "precision=bf16 micro_batch_size=1 global_batch_size=4,8", "function"),
    ("half_micro_batches", f"{SEVERAL} precision=bf16 micro_batch_size=1 global_batch_size=8", "function"),
    ("fewer_steps", "workload=train,lora,forward precision=bf16", "steps"),
    ("fewer_steps", f"{GENERATION} precision=bf16", "steps"),
    ("claimed_twice", "workload=train,lora,forward precision=bf16", "work"),
    *(
        (lie, f"{GENERATION} precision=bf16,fp32 compile=eager,inductor", "choice")
        for lie in ("greedy", "first_logits")
    ),
    ("no_top_k", f"{GENERATION} precision=bf16 generate.top_k=5 generate.unit=model,token", "choice"),
    ("few_tokens", "workload=train,lora,forward,generate precision=bf16", "data"),
    ("few_tokens", f"{SEVERAL} precision=bf16", "data"),
    ("half_lengths", "workload=train,lora precision=bf16 workload.lengths=uniform,alpaca", "data"),
    ("coarse_loss", "precision=bf16,fp32,fp8-torchao", "formats"),
    ("coarse_loss", "strategy=fsdp_stage3 devices=2 precision=bf16-mixed", "formats"),
    ("kept_weights", "workload=lora,forward,generate precision=nf4,nf4-dq", "precision"),
    ("other_kernel", "workload=train,forward precision=bf16 attention=math,flash", "labels"),
    ("other_engine", "engine=fabric precision=bf16 workload=train,forward", "labels"),
    ("unfused", "precision=bf16", "labels"),
    ("other_mixing", "strategy=fsdp_stage2,fsdp_stage3 devices=2 precision=bf16-mixed", "labels"),
    ("other_sync", f"{SEVERAL} precision=bf16 micro_batch_size=1 global_batch_size=4", "gradients_reduced"),
    ("head_compiled", "precision=bf16 compile=inductor compile.scope=model", "compiled"),
    ("kept_products", "precision=bf16 activation_checkpointing=full", "recompute"),
    ("same_drops", "precision=bf16 model.dropout=0.1 compile=eager,inductor", "mode"),
    ("same_drops", "workload=lora precision=bf16,nf4", "mode"),
    ("same_drops", "strategy=ddp devices=2 precision=bf16 model.dropout=0.1", "mode"),
    ("small_weights", "workload=train,forward precision=bf16", "first_loss"),
    ("counted_twice", "precision=bf16 model.tie_embeddings=true", "shape"),
    *((lie, "precision=bf16,bf16-mixed", "optimizer") for lie in ("piled_gradients", "seldom_updates")),
    ("piled_gradients", "strategy=ddp,fsdp_stage3 devices=2 precision=bf16", "optimizer"),
    ("seldom_updates", "precision=fp32 optimizer=sgd", "optimizer"),
    ("idle_window", "workload=train,lora precision=bf16", "trains"),
]
"""Lie, the cells that tell it in lists, and the check that must say so; a cell of one device takes no `devices`."""
IN_SMALL: list[tuple[str, str, str]] = [
    ("double_reduce", "strategy=ddp,fsdp_stage3 devices=2 precision=bf16", "parity"),
    ("wrong_scale", "global_batch_size=2 precision=bf16", "parity"),
    ("stale_recompute", "activation_checkpointing=full precision=bf16", "parity"),
    ("wrong_linear", "precision=fp8,fp8-torchao,nf4", "parity"),
]
"""The lies that only workload=parity sees: the combination at small scale, against fp32."""


@dataclass(frozen=True)
class Caught:
    """A lying cell and its verdict."""

    lie: str
    cell: str
    check: str
    reason_code: str
    """The status where there is none."""
    reason: str
    failed: tuple[str, ...] = ()
    """Every check that said no: work left out is also another function."""

    def holds(self) -> bool:
        return self.reason_code.startswith("validity.") and self.check in self.failed

    def is_out(self) -> bool:
        """Whether the cell cannot be here, by a rule or a library's word, or had no time: it told no lie."""
        return self.reason_code.startswith(("rule.", "missing.", "runtime.", "skipped."))


Case = tuple[str, list[str], str]
"""Lie, the overrides of its cell, and the check that must say so."""


def observe(cases: Sequence[Case], budget: str | None) -> list[Caught]:
    """Every lying cell, all in one sweep; those that a budget left no time for are `skipped`."""
    with new_sweep() as sweep:
        path = sweep.out / "lies.yaml"
        path.write_text("# @package _global_\n" + yaml.safe_dump(_matrix(cases)))
        case_of = {slug: cases[seed - 1] for slug, seed in _planned(path).items()}
        faults = ",".join(f"{case[0]}/{slug}" for slug, case in case_of.items())
        sweep.run([str(path), *(["--budget", budget] if budget else [])], faults)
        records = sweep.records()
        if not records:
            sys.exit(f"no cell has a record\n{sweep.said()[-4000:]}")
        order = {id(case): number for number, case in enumerate(cases)}
        slugs = sorted(records, key=lambda slug: (order[id(case_of[slug])], slug))
        return [_caught(case_of[slug], records[slug]) for slug in slugs]


def _matrix(cases: Sequence[Case]) -> dict[str, Any]:
    """A row a case; its seed is its number from 1, so that no two are one cell."""
    rows = [_values(words) | {"seed": str(seed)} for seed, (_, words, _) in enumerate(cases, 1)]
    return {"hydra": {"mode": "MULTIRUN"}, "brake": None, "compile": {"cache": "shared"}, "sweep": {"include": rows}}


def _planned(path: Path) -> dict[str, int]:
    """Slug of every cell → its seed."""
    job = subprocess.run([*BENCH, "plan", str(path), "--json"], capture_output=True, text=True)
    if job.returncode:
        sys.exit(job.stderr)
    cells = json.loads(job.stdout)["cells"]
    return {cell["slug"]: int(SEED.search(cell["overrides"])[1]) for cell in cells}


def _caught(case: Case, record: dict[str, Any]) -> Caught:
    lie, _, check = case
    failed = tuple(name for name, said in record["checks"].items() if said["ok"] is False)
    code = record["reason_code"] or record["status"]
    return Caught(lie, _label(record["axes"]), check, code, record["reason"] or "", failed)


def _label(axes: Mapping[str, Any]) -> str:
    """What tells most cells of a lie apart."""
    return ", ".join(str(axes[name]) for name in NAMED if axes[name] not in USUAL)


def told(*, cpu: bool, only: set[str], after: Sequence[Path]) -> Iterator[Case]:
    """Every case, in the order of the document, without those that earlier documents have caught."""
    done = Counter(line for document in after for line in _caught_in(document.read_text()))
    for scale, cells in ((SMALL if cpu else WIDE, CELLS), (PARITY, IN_SMALL)):
        for lie, lists, check in cells:
            for words in _each([*scale, *lists.split()]):
                line = (lie, _label(DEFAULTS | _values(words)))
                if done[line]:
                    done[line] -= 1
                elif not only or lie in only:
                    yield lie, words, check


def _values(words: Sequence[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)


def _each(words: Sequence[str]) -> Iterator[list[str]]:
    """The overrides of every cell that lists make."""
    values = {name: value.split(",") for name, value in _values(words).items()}
    for drawn in itertools.product(*values.values()):
        yield [f"{name}={value}" for name, value in zip(values, drawn, strict=True)]


def _caught_in(text: str) -> list[tuple[str, str]]:
    """Lie and label of every line of a document whose cell was caught."""
    lines = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `"))
    return [(lie.strip("`"), cell) for lie, cell, *_, caught in lines if caught == "yes"]


def document(found: list[Caught], *, cpu: bool) -> str:
    lines = ["| lie | cell | verdict | what it says | checks that said no | caught |", "|---|---|---|---|---|---|"]
    for seen in found:
        caught = "yes" if seen.holds() else "not run" if seen.is_out() else "no"
        fields = (f"`{seen.lie}`", seen.cell, f"`{seen.reason_code}`", seen.reason, ", ".join(seen.failed), caught)
        lines.append(f"| {' | '.join(fields)} |")
    scales = f"Cells: `{shlex.join(SMALL if cpu else WIDE)}`; those that only parity sees: `{shlex.join(PARITY)}`."
    command = shlex.join(["python", "benchmarks/planted_lies.py", *sys.argv[1:]])
    return "\n\n".join(["# Planted lies", fault_table.source(command), scales, "\n".join(lines)]) + "\n"


def main() -> int:
    options = _parse()
    if not options.cpu and not visible_devices():
        sys.exit("needs a visible CUDA device; --cpu tries it without")
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} if options.cpu else {}
    cases = list(told(cpu=options.cpu, only=options.only, after=options.after))
    if not cases:
        sys.exit("nothing is left to tell")
    found = observe(cases, options.budget)
    text = document(found, cpu=options.cpu)
    if options.out:
        options.out.write_text(text)
    print(text)
    return 0 if all(seen.holds() or seen.is_out() for seen in found) else 3


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"lies, comma-separated: {', '.join(LIES)}")
    parser.add_argument(
        "--after", type=Path, nargs="+", default=[], help="earlier documents: what they caught is not told again"
    )
    parser.add_argument("--cpu", action="store_true", help="2 CPU ranks and small cells")
    parser.add_argument("--out", type=Path, help="write the document here too")
    parser.add_argument("--budget", help="time for the cells, as 8m; those that it leaves out are not run")
    options = parser.parse_args()
    options.only = set(filter(None, options.only.split(",")))
    if unknown := options.only - set(LIES):
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}; known: {', '.join(LIES)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
