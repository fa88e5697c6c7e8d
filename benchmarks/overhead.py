"""What the harness costs: a cell's step time against the hand-written loop's (bare.py), in alternation.

    python benchmarks/overhead.py                                 every strategy that the visible devices allow
    python benchmarks/overhead.py --strategies single --compile inductor --batch 2 --pairs 7

Each pair builds, warms up and times both sides in one process, in alternating order, so that clocks, temperature and
neighbours hit both alike. The ratio's interval is a bootstrap over pairs of the ratio of median step times. It prints
one Markdown table, and with --json writes every sample.
"""

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
STRATEGIES = ("single", "ddp", "fsdp_stage2", "fsdp_stage3")
BARE_COMPILE = {"eager": "none", "inductor": "block"}
BARE_PRECISION = {"bf16": "bf16", "fp8": "fp8te", "fp8-torchao": "fp8ao"}


def main() -> None:
    """Start one torchrun job for `single` and one for the strategies that need several devices."""
    options = _parse()
    if "RANK" in os.environ:
        _run_rank(options)
        return
    import torch

    visible = torch.cuda.device_count()
    if not visible:
        sys.exit("bench-overhead compares with a CUDA loop: no CUDA device is visible")
    names = [name for name in options.strategies.split(",") if name == "single" or visible > 1]
    for group, processes in ((["single"], 1), (list(STRATEGIES[1:]), visible)):
        wanted = [name for name in names if name in group]
        if wanted:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=localhost"]
            command += [f"--nproc-per-node={processes}", __file__, *sys.argv[1:], "--strategies", ",".join(wanted)]
            subprocess.run(command, check=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama2-7b")
    parser.add_argument("--num-layers", type=int, help="override the depth, for a quick look")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--compile", default="eager,inductor")
    parser.add_argument("--precision", default="bf16", choices=list(BARE_PRECISION))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--words", nargs="*", default=[], help="more words for our cell, e.g. attention=flash")
    parser.add_argument("--json", type=Path, help="write all samples here (one file a strategy and compiler)")
    return parser.parse_args()


def _run_rank(options: argparse.Namespace) -> None:
    import torch
    import torch.distributed as dist

    rank, local_rank, world_size = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    torch.cuda.set_device(local_rank)
    if world_size > 1:
        dist.init_process_group("nccl", device_id=torch.device("cuda", local_rank))
    if rank == 0:
        print(f"\n{_setup(options, world_size)}\n\n{_HEADER}", flush=True)
    for strategy in options.strategies.split(","):
        for compiler in options.compile.split(","):
            pairs = [_pair(options, strategy, compiler, index) for index in range(options.pairs)]
            if rank == 0:
                print(_row(strategy, compiler, pairs), flush=True)
                if options.json:
                    target = options.json.with_suffix(f".{strategy}.{compiler}.json")
                    target.write_text(json.dumps({"setup": _setup(options, world_size), "pairs": pairs}))
    if world_size > 1:
        dist.destroy_process_group()


def _pair(options: argparse.Namespace, strategy: str, compiler: str, index: int) -> dict[str, dict[str, Any]]:
    """One measurement of each side, the order changing from pair to pair."""
    sides = {"bare": _run_bare, "cell": _run_cell}
    order = list(sides) if index % 2 == 0 else list(reversed(sides))
    rows = {}
    for side in order:
        rows[side] = sides[side](options, strategy, compiler)
        _clean()
        if os.environ["RANK"] == "0":
            median_s = statistics.median(rows[side]["step_times_s"])
            told = f"{strategy} {compiler}, pair {index + 1}: {side} {median_s * 1e3:.1f} ms"
            print(told, file=sys.stderr, flush=True)
    return rows


def _run_bare(options: argparse.Namespace, strategy: str, compiler: str) -> dict[str, Any]:
    import bare

    words = ["--model", options.model, "--strategy", strategy, "--compile", BARE_COMPILE[compiler]]
    words += ["--precision", BARE_PRECISION[options.precision], "--bs", str(options.batch)]
    words += ["--steps", str(options.steps), "--warmup", str(options.warmup), "--fresh-data", "--timer", "events"]
    if options.num_layers:
        words += ["--layers", str(options.num_layers)]
    row = bare.run(bare.parse(words))
    return {"step_times_s": row["step_times_s"], "peak_gib": row["peak_gb"], "loss": row["loss"]}


def _run_cell(options: argparse.Namespace, strategy: str, compiler: str) -> dict[str, Any]:
    import torch._dynamo

    from benchrunner.worker.context import Context
    from benchrunner.worker.workloads import train

    words = [f"model={options.model}", f"strategy={strategy}", f"precision={options.precision}"]
    words += [f"compile={compiler}", f"micro_batch_size={options.batch}", f"measure.steps={options.steps}"]
    words += [f"measure.warmup_steps={options.warmup}", "compile.cache=shared", *options.words]
    words += [f"model.num_layers={options.num_layers}"] if options.num_layers else []
    rank, local_rank, world_size = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    cell = _plan_cell([*words, *([] if strategy == "single" else [f"devices={world_size}"])])
    with tempfile.TemporaryDirectory() as scratch:
        context = Context(
            cell=cell,
            hardware={"device_type": "cuda"},
            rank=rank,
            local_rank=local_rank,
            world_size=world_size,
            path=Path(scratch) / "rank.json",
        )
        settings = torch._dynamo.config.save_config()
        result = train.run(context)
        torch._dynamo.config.load_config(settings)  # the loop beside it is not to run under the cell's limits
    return {
        "step_times_s": result["step_times_s"],
        "peak_gib": round(result["memory"]["window"]["allocated_bytes"] / 2**30, 2),
        "loss": result["losses"][-1],
    }


def _plan_cell(words: list[str]) -> Any:
    """Our cell exactly as `bench` makes it."""
    from benchrunner.config.hydra_app import expand
    from benchrunner.machine.hardware import detect
    from benchrunner.plan.planner import make_cells

    (cell,) = make_cells(expand(words, multirun=False).rows, detect())
    return cell


def _clean() -> None:
    import torch

    torch.set_default_dtype(torch.float32)
    torch._dynamo.reset()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


_HEADER = (
    "| strategy | compile | bare ms | cell ms | ratio | 95 % interval | bare GiB | cell GiB |\n"
    "|---|---|---|---|---|---|---|---|"
)


def _row(strategy: str, compiler: str, pairs: list[dict[str, dict[str, Any]]]) -> str:
    medians = {side: [statistics.median(pair[side]["step_times_s"]) for pair in pairs] for side in ("bare", "cell")}
    low, high = _bootstrap_interval(medians["cell"], medians["bare"])
    bare_s, cell_s = statistics.median(medians["bare"]), statistics.median(medians["cell"])
    return (
        f"| {strategy} | {compiler} | {bare_s * 1e3:.1f} | {cell_s * 1e3:.1f} | {cell_s / bare_s:.4f} "
        f"| {low:.4f} to {high:.4f} | {pairs[-1]['bare']['peak_gib']} | {pairs[-1]['cell']['peak_gib']} |"
    )


def _bootstrap_interval(ours: list[float], theirs: list[float], rounds: int = 10_000) -> tuple[float, float]:
    """95 % percentile bootstrap over pairs of median(ours) ÷ median(theirs)."""
    draw = random.Random(0)
    indices = range(len(ours))
    ratios = []
    for _ in range(rounds):
        sample = draw.choices(indices, k=len(ours))
        ratios.append(statistics.median(ours[i] for i in sample) / statistics.median(theirs[i] for i in sample))
    ratios.sort()
    return ratios[int(0.025 * rounds)], ratios[int(0.975 * rounds)]


def _setup(options: argparse.Namespace, world_size: int) -> str:
    import torch

    depth = f", {options.num_layers} layers" if options.num_layers else ""
    return (
        f"{options.model}{depth}, {options.precision}, micro-batch {options.batch}, {world_size} × "
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {options.pairs} alternating pairs of "
        f"{options.steps} steps after {options.warmup}"
    )


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
