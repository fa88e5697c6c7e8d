"""Plan ten thousand cells (expand, rule, freeze to disk) and compare with what stock Hydra needs to compose them.

    python benchmarks/plan_10k.py [--skip-hydra]

The last line of the output is one JSON document. Hydra's BasicSweeper composes every cell twice (to validate and to
launch); here a sample is composed once each, and the time is scaled to all cells.
"""

import argparse
import itertools
import json
import random
import sys
import tempfile
import time

MATRIX = {
    "model": "llama-7b,llama-13b,llama-33b,llama-65b,llama2-7b,llama2-13b,llama2-70b,llama3-8b,codellama-34b,falcon-7b",
    "strategy": "single,ddp,fsdp_stage2,fsdp_stage3",
    "precision": "fp32,bf16,bf16-mixed,fp8",
    "compile": "eager,inductor",
    "activation_checkpointing": "none,full,selective",
    "micro_batch_size": "1,2,4,8,16,32",
    "seq_len": "2048,4096",
}
SAMPLE = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--skip-hydra", action="store_true", help="only plan, do not compose the sample by stock Hydra")
    result = time_plan()
    if not parser.parse_args().skip_hydra:
        result |= time_hydra(result["num_cells"])
        result["ratio"] = result["hydra_s"] / result["total_s"]
    for key, value in result.items():
        print(f"{key:<16} {value:.2f}" if isinstance(value, float) else f"{key:<16} {value}")
    print(json.dumps(result))


def time_plan() -> dict:
    """Seconds of each step, imports included."""
    start = time.perf_counter()
    from benchrunner.config import hydra_app
    from benchrunner.core import paths
    from benchrunner.machine import hardware
    from benchrunner.plan import planner, rules
    from benchrunner.store import plan_file

    imported = time.perf_counter()
    expansion = hydra_app.expand([f"{key}={values}" for key, values in MATRIX.items()], multirun=True)
    expanded = time.perf_counter()
    machine = hardware.resolve(expansion.rows[0].config.hardware)
    made = planner.make_plan(expansion, machine, rules.load_rules(paths.config_dir() / "compat.yaml"))
    ruled = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        plan_file.write_plan(made, folder)
        frozen = time.perf_counter()
    return {
        "num_cells": len(made.cells),
        "torch_imported": "torch" in sys.modules,
        "import_s": imported - start,
        "expand_s": expanded - imported,
        "rule_s": ruled - expanded,
        "freeze_s": frozen - ruled,
        "total_s": frozen - start,
    }


def time_hydra(num_cells: int) -> dict:
    """Seconds that Hydra's own compose takes for a sample, and for all cells at that rate."""
    from hydra import compose, initialize_config_dir

    from benchrunner.core import paths

    points = list(itertools.product(*(values.split(",") for values in MATRIX.values())))
    sample = random.Random(0).sample(points, SAMPLE)
    with initialize_config_dir(config_dir=str(paths.config_dir()), version_base="1.3"):
        start = time.perf_counter()
        for point in sample:
            compose("config", overrides=[f"{key}={value}" for key, value in zip(MATRIX, point, strict=True)])
        a_cell = (time.perf_counter() - start) / SAMPLE
    return {"hydra_cell_s": a_cell, "hydra_s": a_cell * num_cells}


if __name__ == "__main__":
    main()
