"""The loss scale of float16: steps that overflow are skipped, counted, and change nothing."""

import json
import os
import subprocess
import textwrap

import pytest
import torch

from benchrunner.worker.axes.precision.loss_scale import CountingScaler
from benchrunner.worker.engines.engine import build
from benchrunner.worker.steps.training_loop import TrainingLoop
from cells import SUPPORT, make_cell, make_context, torchrun

FEW = ("model.num_layers=1", "model.vocab_size=256", "seq_len=16", "micro_batch_size=2", "precision=fp16-mixed")


def run(*words, steps=3, init_scale=None):
    context = make_context(make_cell(*FEW, *words))
    loop = TrainingLoop(context, build(context))
    if init_scale is not None:
        loop._scaler._init_scale = init_scale
    before = [parameter.detach().clone() for parameter in loop.built.decoder.parameters()]
    loop.prepare(range(steps))
    for step in range(steps):
        loop.step(step)
    moved = [not torch.equal(a, b) for a, b in zip(before, loop.built.decoder.parameters(), strict=True)]
    return loop, moved


@pytest.mark.parametrize("words", [[], ["optimizer=sgd"], ["optimizer.clip_norm=1"], ["global_batch_size=4"]])
def test_a_scale_that_fits_skips_nothing(words):
    loop, moved = run(*words)
    assert loop.choices() == {"loss_scale": 65536.0, "num_skipped_steps": 0}
    assert all(moved)


@pytest.mark.parametrize("words", [[], ["optimizer=sgd"], ["optimizer.clip_norm=1"]])
def test_steps_that_overflow_are_skipped_and_counted(words):
    loop, moved = run(*words, init_scale=2.0**120)
    assert loop.choices() == {"loss_scale": 2.0**117, "num_skipped_steps": 3}
    assert not any(moved)


def test_the_update_does_not_depend_on_the_scale():
    curves = [torch.tensor(run("optimizer.lr=0.01", init_scale=scale)[0].mean_losses()) for scale in (2.0**8, 2.0**12)]
    torch.testing.assert_close(curves[0], curves[1], atol=2e-3, rtol=0)


def test_other_formats_are_not_scaled():
    loop, _ = run("precision=bf16-mixed")
    assert loop.choices() == {}
    loss = torch.tensor(2.0)
    assert CountingScaler("cpu", enabled=False).scale(loss) is loss


OVERFLOW_ON_ONE_RANK = """
    import json, os, sys
    import torch, torch.distributed as dist
    sys.path.insert(0, sys.argv[1])
    from benchrunner.worker.engines.engine import build
    from benchrunner.worker.steps.training_loop import TrainingLoop
    from cells import make_cell, make_context
    cell = make_cell(*sys.argv[3:])
    context = make_context(cell)
    loop = TrainingLoop(context, build(context))
    loop.prepare(range(2))
    loop.accumulate(loop._batches.pop(0))
    if context.rank == 1:
        gradient = loop.built.decoder.head.weight.grad
        gradient.to_local()[0, 0] = float("inf")
    loop._scaler.step(loop.optimizer)
    loop._scaler.update()
    seen = [None] * 2
    dist.all_gather_object(seen, loop.choices())
    if context.rank == 0:
        open(sys.argv[2], "w").write(json.dumps(seen))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)
"""


@pytest.mark.slow
def test_every_rank_skips_when_one_overflows(tmp_path):
    script, out = tmp_path / "job.py", tmp_path / "out.json"
    script.write_text(textwrap.dedent(OVERFLOW_ON_ONE_RANK))
    words = [*FEW, "strategy=fsdp", "devices=2"]
    command = torchrun(script, str(SUPPORT), str(out), *words)
    job = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert job.returncode == 0, job.stderr[-3000:]
    assert json.loads(out.read_text()) == [{"loss_scale": 32768.0, "num_skipped_steps": 1}] * 2
