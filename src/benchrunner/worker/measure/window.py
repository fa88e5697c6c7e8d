"""Warm up, measure a window of steps, and read everything that was counted: the same for every workload."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell
from benchrunner.core.rank_result import CompileCounters, RankResult
from benchrunner.worker.axes import compile
from benchrunner.worker.context import Context
from benchrunner.worker.measure.memory import MemoryMeter
from benchrunner.worker.measure.meters import DeviceMonitor, frozen_gc
from benchrunner.worker.measure.timer import make_timer, synchronise


@dataclass(frozen=True, slots=True)
class Steps:
    """A workload as the window sees it."""

    prepare: Callable[[range], None]
    """Draw the data of these steps, outside any timing."""
    run: Callable[[int], None]
    """Issue one step; must not synchronise with the device."""


def measure(
    context: Context, steps: Steps, *, warmup_steps: int | None = None, num_steps: int | None = None
) -> RankResult:
    """Run warm-up and window; the keys step_times_s, window_s, memory, compile, and the driver's view.

    How many steps: as `measure` in the configuration says, unless the workload counts for itself.

    When a compiler worked inside the window, the window is measured once more: what was compiled late belongs to the
    warm-up. If it happens again, `compile.num_window_recompiles` says so.
    """
    options = context.cell.config.measure
    meter = MemoryMeter(
        context.device, captures=_captures_graphs(context), unseen=_captures_in_first_step(context.cell)
    )
    warmup = options.warmup_steps if warmup_steps is None else warmup_steps
    length = num_steps or options.steps
    first_step_s = _warm_up(context, steps, warmup)
    window = _window(context, steps, range(warmup, warmup + length), meter)
    if _any_recompiled(context, window):
        window = _window(context, steps, range(warmup + length, warmup + 2 * length), meter)
    window["compile"]["first_step_s"] = first_step_s
    if context.cell.axes["compile"] == "eager":
        late = window["compile"]["num_window_recompiles"]
        window["compile"] = {"first_step_s": first_step_s, "num_window_recompiles": late}
    return window


def _any_recompiled(context: Context, window: RankResult) -> bool:
    """Whether a compiler worked on any rank: all must measure again, or one waits for peers that do not come."""
    count = torch.tensor(window["compile"]["num_window_recompiles"], device=context.device)
    if context.world_size > 1:
        torch.distributed.all_reduce(count)
    return bool(count)


def _warm_up(context: Context, steps: Steps, count: int) -> float | None:
    """The first step is a phase of its own, since compilers work lazily; returns its seconds."""
    if count == 0:
        return None
    steps.prepare(range(count))
    context.phase("compile")
    started = time.perf_counter()
    steps.run(0)
    synchronise(context.device, context.world_size)
    first_step_s = time.perf_counter() - started
    context.phase("warmup")
    for index in range(1, count):
        steps.run(index)
        context.beat()
    return first_step_s


def _window(context: Context, steps: Steps, indices: range, meter: MemoryMeter) -> RankResult:
    steps.prepare(indices)
    timer, monitor, before = make_timer(context.device), DeviceMonitor(context.device), compile.read_stats()
    context.phase("measure")
    with frozen_gc():
        synchronise(context.device, context.world_size)
        meter.start_window()
        monitor.start()
        started_s = time.monotonic()
        timer.mark()
        for index in indices:
            steps.run(index)
            timer.mark()
            context.beat()
        synchronise(context.device, 1)
        window_s = time.monotonic() - started_s
        synchronise(context.device, context.world_size)
        driver = monitor.stop()
    return {
        "step_times_s": timer.step_times_s(),
        "window_s": window_s,
        "memory": meter.read(),
        "compile": _compile_block(before, compile.read_stats()),
        **driver,
    }


def _captures_graphs(context: Context) -> bool:
    """Whether the first steps capture CUDA graphs, which the others replay."""
    return context.cell.config.compile.replays_graphs and context.device.type == "cuda"


def _captures_in_first_step(cell: Cell) -> bool:
    """Whether the first optimizer step captures what it captures: a graph is, when it runs for the second time."""
    return cell.axes["workload"] in arithmetic.GRADIENT_WORKLOADS and cell.sizes.accumulation_steps > 1


def _compile_block(before: compile.CompileStats, after: compile.CompileStats) -> CompileCounters:
    return {
        "compile_s": after.compile_s,
        "num_frames": after.num_frames,
        "num_graphs": after.num_graphs,
        "num_graph_breaks": sum(after.graph_breaks.values()),
        "graph_break_reasons": after.graph_breaks,
        # Dynamo counts no frames under fullgraph, and no graph for a frame that it leaves as it is.
        "num_window_recompiles": max(after.num_frames - before.num_frames, after.num_graphs - before.num_graphs),
        "cache_hits": after.num_cache_hits,
        "cache_misses": after.num_cache_misses,
    }
