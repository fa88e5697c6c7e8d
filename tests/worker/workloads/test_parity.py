"""Combinations agree with fp32 on one device, and what computes something else does not."""

import json
import math
import os
import subprocess

import pytest
import torch

import samples
from benchrunner.core.faults import parse_fault
from benchrunner.core.files import write_json
from benchrunner.core.parity_cell import small_scale
from benchrunner.core.record import record_to_dict
from benchrunner.worker.faults.lying_functions import NotCausal, WithoutPositions
from benchrunner.worker.faults.plant import planted
from benchrunner.worker.model import decoder
from benchrunner.worker.model.layers import Attention
from benchrunner.worker.workloads import parity
from benchrunner.worker.workloads.parity import Difference, draw_task_step, summarise, within_tolerance
from benchrunner.worker.workloads.parity_tolerances import FACTOR, KNOWN_GOOD, Errors, collect, tolerance
from cells import SUPPORT, make_cell, make_context, torchrun
from fake_te import autocast, fake_te  # noqa: F401

JOB = SUPPORT / "parity_job.py"
CPU = torch.device("cpu")

SHORT_CURVE = 4
"""Steps where the gradients are what is asked about; whole curves take bfloat16 half a minute on a CPU."""

RIGHT = [
    "|strategy=ddp precision=bf16-mixed",
    "|strategy=fsdp_stage3 precision=bf16 activation_checkpointing=full",
    "|strategy=fsdp_stage2 precision=fp32 activation_checkpointing=full global_batch_size=4",
    "|strategy=fsdp_stage3 precision=fp8-torchao activation_checkpointing=selective",
    "|strategy=ddp precision=nf4",
]
WRONG = [
    "no_reduce|strategy=fsdp_stage3 precision=fp8-torchao",
    "double_reduce|strategy=ddp precision=bf16",
    "wrong_scale|strategy=fsdp_stage3 precision=fp8-torchao global_batch_size=4",
    "stale_recompute|strategy=single precision=fp8-torchao activation_checkpointing=full",
    "wrong_linear|strategy=fsdp_stage3 precision=fp8-torchao",
]
"""Each in the precision with the widest tolerance that can have it."""

RIGHT_TO_THE_END = [
    "|strategy=fsdp_stage2 precision=fp32 activation_checkpointing=full global_batch_size=32",
    "|strategy=fsdp_stage3 precision=bf16",
    "|strategy=ddp precision=bf16-mixed activation_checkpointing=full",
    "|strategy=ddp precision=fp16-mixed",
    "|strategy=fsdp_stage3 precision=fp8-torchao activation_checkpointing=selective",
    "|strategy=ddp precision=nf4",
    "|strategy=fsdp_stage3 precision=nf4-dq",
]
WRONG_ELSEWHERE = [
    "no_reduce|strategy=ddp precision=fp8-torchao",
    "double_reduce|strategy=fsdp_stage2 precision=bf16",
    "wrong_scale|strategy=single precision=fp8-torchao global_batch_size=2",
    "stale_recompute|strategy=fsdp_stage2 precision=fp8-torchao activation_checkpointing=full",
    "wrong_linear|strategy=single precision=fp8-torchao",
    "same_data|strategy=ddp precision=bf16",
    "frozen|strategy=ddp precision=fp8-torchao",
    "short_batch|strategy=ddp precision=fp8-torchao",
    "zero_norm|strategy=fsdp_stage3 precision=fp8-torchao",
    "wrong_shape|strategy=single precision=fp8-torchao",
]


class Outcome:
    """What one process group of two ranks found of many cases; it may have ended before the last one."""

    def __init__(self, folder, num_steps, cases):
        command = torchrun(JOB, str(folder), str(num_steps), *cases)
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        job = subprocess.run(command, env=env, capture_output=True, text=True)
        found = {case: folder / f"{index}.json" for index, case in enumerate(cases)}
        self.results = {case: json.loads(path.read_text()) for case, path in found.items() if path.exists()}
        self.ending = f"exit code {job.returncode}\n{job.stderr[-3000:]}"

    def of(self, case):
        """The one cell of a case."""
        assert case in self.results, f"never finished: {self.ending}"
        (result,) = self.results[case]
        return result


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return Outcome(tmp_path_factory.mktemp("quick"), SHORT_CURVE, [*RIGHT, *WRONG])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Outcome(tmp_path_factory.mktemp("whole"), parity.NUM_STEPS, [*RIGHT_TO_THE_END, *WRONG_ELSEWHERE])


def assert_within(result):
    assert result["checks"]["parity"]["ok"] is True, result["checks"]


def assert_exceeds(result):
    check = result["checks"]["parity"]
    assert check["ok"] is False and check["expected"] != check["observed"], check


@pytest.mark.parametrize("case", RIGHT)
def test_known_good_gradients_are_within_tolerance(quick, case):
    assert_within(quick.of(case))


@pytest.mark.parametrize("case", WRONG)
def test_a_fault_exceeds_the_tolerance(quick, case):
    assert_exceeds(quick.of(case))


@pytest.mark.slow
@pytest.mark.parametrize("case", RIGHT_TO_THE_END)
def test_known_good_curves_are_within_tolerance(whole, case):
    result = whole.of(case)
    assert_within(result)
    losses = result["parity"]["reference_losses"]
    assert losses[0] == pytest.approx(math.log(256), abs=0.6)
    assert len(losses) == parity.NUM_STEPS
    assert "nf4" in case or losses[-1] < losses[0] - 2  # the task is learned, unless the base is frozen


@pytest.mark.slow
@pytest.mark.parametrize("case", WRONG_ELSEWHERE)
def test_a_fault_exceeds_the_tolerance_under_other_strategies(whole, case):
    assert_exceeds(whole.of(case))


@pytest.fixture
def one_thread():
    """Threads of so small a model wait for each other most of the time, on a busy machine ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_fp32_alone_is_the_reference_itself(one_thread):
    result = parity.run(make_context(make_cell("workload=parity", "precision=fp32")))
    assert result["metrics"]["parity_gradient_error"] < 1e-5
    assert result["metrics"]["parity_cosine"] > 1 - 1e-5
    assert result["metrics"]["parity_curve_error"] < 1e-4
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_packed_weights_are_taken_back_from_what_they_were_packed_from(monkeypatch, one_thread):
    """Fabric's plug-in packs from float16, the native engine from bfloat16."""
    pytest.importorskip("bitsandbytes")
    ours = parity._loop(make_context(small_scale(make_cell("workload=parity", "precision=nf4"))))
    for linear in parity.nf4.packed_linears(ours.built.decoder).values():
        linear.quant_state.dtype = torch.float16
    asked, dequantised = set(), parity.nf4.dequantised

    def ask(name, shape, cell, device, dtype=torch.bfloat16):
        asked.add(dtype)
        return dequantised(name, shape, cell, device, dtype)

    monkeypatch.setattr(parity.nf4, "dequantised", ask)
    parity.reference_loop(ours)
    assert asked == {torch.float16}


def test_each_token_of_the_task_tells_the_next():
    cell = small_scale(make_cell("workload=parity"))
    tokens = torch.cat([batch for step in range(3) for batch in draw_task_step(cell, step, 0, CPU)])
    successors = {}
    for token, following in zip(tokens[:, :-1].flatten().tolist(), tokens[:, 1:].flatten().tolist(), strict=True):
        assert successors.setdefault(token, following) == following
    assert len(set(tokens[:, 0].tolist())) > 10


def test_ranks_share_the_global_batch_of_the_reference():
    two = small_scale(make_cell("workload=parity", "strategy=ddp", "devices=2"))
    one = small_scale(make_cell("workload=parity", "global_batch_size=2"))
    halves = [torch.cat(draw_task_step(two, 5, rank, CPU)) for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), torch.cat(draw_task_step(one, 5, 0, CPU)))


def test_a_missing_gradient_is_the_largest_error():
    wanted = torch.ones(4)
    assert parity._difference("w", 0, None, wanted).error == 1.0
    assert parity._difference("w", 0, torch.zeros(4), torch.zeros(4)).error == 0.0
    assert parity._difference("w", 0, wanted, torch.zeros(4)).error == math.inf
    assert parity._difference("w", 0, 2 * wanted, wanted).cosine == pytest.approx(1.0)


def test_the_worst_counts():
    differences = [Difference("a", 0, 0.1, 0.999), Difference("b", 0, 0.3, 0.9)]
    assert summarise(differences, [3.0, 2.0], [3.0, 2.5]) == Errors(0.3, pytest.approx(0.1), 0.5)
    with pytest.raises(FloatingPointError, match="step 1"):
        summarise(differences, [3.0, math.nan], [3.0, 2.5])


def test_a_precision_that_was_never_measured_is_not_judged():
    finding = within_tolerance("fp7", Errors(9, 9, 9), [Difference("a", 0, 9, 0)])
    assert finding.ok is None and "fp7" in finding.note


def test_every_precision_that_is_judged_is_followed_to_the_end():
    """But Transformer Engine's, which no CPU computes: tests/gpu."""
    assert {case.partition("precision=")[2].split()[0] for case in RIGHT_TO_THE_END} == set(KNOWN_GOOD) - {"fp8"}


def test_a_pass_for_the_history_of_scales_changes_nothing_else(one_thread):
    """Delayed scaling compares its second pass over the same batch with the same weights."""
    cell = make_cell("workload=parity", "precision=fp32", "global_batch_size=2")
    loop = parity._loop(make_context(small_scale(cell)))
    before = {name: parameter.detach().clone() for name, parameter in loop.built.decoder.named_parameters()}
    loop.take_history()
    assert loop.num_steps == 0
    for name, parameter in loop.built.decoder.named_parameters():
        assert parameter.grad is None and torch.equal(parameter, before[name])
    loop.prepare(range(1))
    loop.step(0)
    other = parity._loop(make_context(small_scale(cell)))
    other.prepare(range(1))
    other.step(0)
    assert loop.mean_losses() == other.mean_losses()
    mine, yours = loop.built.decoder.parameters(), other.built.decoder.parameters()
    assert all(torch.equal(a, b) for a, b in zip(mine, yours, strict=True))


@pytest.mark.parametrize(("recipe", "passes"), [("delayed", 1), ("current", 0)])
def test_transformer_engine_is_judged_and_only_delayed_scaling_takes_a_history(
    fake_te,  # noqa: F811
    monkeypatch,
    one_thread,
    recipe,
    passes,
):
    monkeypatch.setattr(parity, "NUM_STEPS", 2)
    result = parity.run(make_context(make_cell("workload=parity", "precision=fp8", f"precision.recipe={recipe}")))
    assert_within(result)
    assert len(autocast.updates) == passes + 2


@pytest.mark.parametrize("fault", ["wrong_linear", "stale_recompute"])
def test_lies_of_transformer_engine_s_modules_exceed_its_tolerance(fake_te, monkeypatch, one_thread, fault):  # noqa: F811
    """Its linear is no `nn.Linear`, its checkpoint not torch's."""
    monkeypatch.setattr(parity, "NUM_STEPS", 2)
    cell = make_cell("workload=parity", "precision=fp8", "activation_checkpointing=full")
    with planted(parse_fault(fault), context := make_context(cell)):
        result = parity.run(context)
    assert_exceeds(result)


@pytest.mark.parametrize("precision", KNOWN_GOOD)
def test_a_tolerance_is_three_known_good_errors(precision):
    known, allowed = KNOWN_GOOD[precision], tolerance(precision)
    assert allowed == known.scaled(FACTOR) and FACTOR == 3
    worst = [Difference("a", 0, 0, 1)]
    assert within_tolerance(precision, known, worst).ok is True
    assert within_tolerance(precision, known.scaled(3.1), worst).ok is False


def test_errors_are_collected_from_records(tmp_path):
    def record(name, precision, gradient, workload="parity"):
        metrics = {"parity_gradient_error": gradient, "parity_cosine": 0.9, "parity_curve_error": 0.5}
        made = samples.make_record(
            samples.make_cell(), metrics=metrics, axes={"precision": precision, "workload": workload}
        )
        write_json(tmp_path / name, record_to_dict(made))
        return tmp_path / name

    paths = [record("1", "bf16", 0.1), record("2", "bf16", 0.2), record("3", "fp8", 0.3), record("4", "x", 1, "train")]
    assert collect(paths) == {
        "bf16": Errors(0.2, pytest.approx(0.1), 0.5),
        "fp8": Errors(0.3, pytest.approx(0.1), 0.5),
    }


@pytest.mark.parametrize(("attention", "is_right"), [(Attention, True), (NotCausal, False), (WithoutPositions, False)])
def test_what_the_reference_loop_shares_with_the_cell_is_judged_by_formulas(monkeypatch, attention, is_right):
    monkeypatch.setattr(decoder, "Attention", attention)
    context = make_context(small_scale(make_cell("workload=parity", "precision=fp32")))
    ours = parity._loop(context)
    worst = max(found.error for found in parity.compare_gradients(ours, parity.reference_loop(ours)))
    assert (worst < 1e-5) is is_right
