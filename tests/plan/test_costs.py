from dataclasses import replace

import pytest

from benchrunner.core.arithmetic import hardware_flops_per_step, linear_weight_bytes, num_parameters
from benchrunner.core.record import PHASES
from benchrunner.plan.costs import (
    CHECK_S,
    COMPILE_S,
    FLOPS_PER_S,
    GATHERED_BYTES_PER_S,
    NUM_PROBES,
    OPTIONAL_IMPORT_S,
    PARAMETERS_PER_S,
    TOKEN_S,
    compiler_s,
    expected_cell_s,
    expected_phases_s,
    expected_row_s,
    step_s,
)
from benchrunner.plan.window import NUM_WARMUP_SAMPLES, num_steps
from samples import make_cell, plan_cell


def planned(bound_s=None, **axes):
    predicted = None if bound_s is None else {"step_time_s": bound_s}
    return replace(plan_cell(make_cell(leaves=axes.pop("leaves", {}), **axes)), predicted=predicted)


def test_a_cell_takes_what_its_phases_take():
    phases_s = expected_phases_s(planned(), "cpu")
    assert tuple(phases_s) == PHASES and min(phases_s.values()) > 0
    assert expected_cell_s(planned(), "cpu") == pytest.approx(sum(phases_s.values()))


@pytest.mark.parametrize(
    ("leaves", "axes", "phase"),
    [
        ({"model.num_layers": 800}, {}, "build"),
        ({}, {"compile": "inductor"}, "compile"),
        ({"measure.warmup_steps": 50}, {}, "warmup"),
        ({"measure.steps": 2000}, {}, "measure"),
        ({"seq_len": 4096}, {}, "check"),
    ],
)
def test_more_work_is_expected_to_take_longer(leaves, axes, phase):
    more = planned(leaves=leaves, **axes)
    assert expected_phases_s(more, "cpu")[phase] > expected_phases_s(planned(), "cpu")[phase]
    assert expected_cell_s(more, "cpu") > expected_cell_s(planned(), "cpu")


def test_phases_take_the_steps_that_they_make():
    def more_s(once_s, often_s, **axes):
        once, often = (expected_phases_s(planned(seconds, **axes), "cpu") for seconds in (once_s, often_s))
        return {phase: often[phase] - once[phase] for phase in PHASES if often[phase] > once[phase]}

    training = {"measure.warmup_steps": 3, "measure.steps": 20}
    assert more_s(1.0, 2.0, leaves=training) == {"compile": 1.0, "warmup": 3.0, "measure": 20.0, "check": 8.0}
    samples = {"generate.num_samples": 4}
    assert more_s(1.0, 2.0, workload="generate", leaves=samples) == {
        "compile": 1.0, "warmup": NUM_WARMUP_SAMPLES, "measure": 3.0, "check": 1.0,
    }  # fmt: skip


def test_checks_of_long_steps_take_what_they_may():
    """A fifth of the window, or a little more; not eight steps, of which each may take half a minute."""
    checking_s = expected_phases_s(planned(30.0, leaves={"measure.steps": 2}), "cuda")["check"]
    assert checking_s == pytest.approx(CHECK_S + 2 * 0.2 * 60)


def test_every_parameter_is_drawn_when_a_model_is_built():
    small, large = (planned(leaves={"model.num_layers": count}) for count in (1, 101))
    num_more = num_parameters(large.cell.config.model) - num_parameters(small.cell.config.model)
    more_s = expected_phases_s(large, "cpu")["build"] - expected_phases_s(small, "cpu")["build"]
    assert more_s == pytest.approx(num_more / PARAMETERS_PER_S)


@pytest.mark.parametrize(
    "axes", [{"engine": "fabric"}, {"precision": "nf4"}, {"compile": "thunder"}, {"optimizer": "paged-adamw"}]
)
def test_a_library_that_few_cells_need_takes_its_time_to_import(axes):
    usual_s, more_s = (expected_phases_s(planned(**one), "cuda")["build"] for one in ({"compile": "inductor"}, axes))
    assert more_s == pytest.approx(usual_s + OPTIONAL_IMPORT_S)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_search_takes_as_long_as_its_probes(device):
    alone, search = planned(), planned(1.0, leaves={"micro_batch_size": "max"})
    assert expected_row_s(alone, device) == expected_cell_s(alone, device)
    assert expected_row_s(search, device) == NUM_PROBES * expected_cell_s(search, device)


def test_parity_takes_as_long_for_any_model_since_it_makes_it_small():
    large = {"model.num_layers": 80, "model.d_model": 8192, "model.d_ff": 28672, "seq_len": 4096}
    costs_s = [expected_cell_s(planned(workload="parity", leaves=leaves), "cpu") for leaves in ({}, large)]
    assert costs_s[1] < 1.5 * costs_s[0] < 120


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_compiler_takes_longer_for_a_whole_model_and_when_it_tunes(device):
    compiled = {
        name: compiler_s(make_cell(compile="inductor", leaves=leaves), device)
        for name, leaves in {
            "block": {},
            "model": {"compile.scope": "model"},
            "tuned": {"compile.mode": "max-autotune-no-cudagraphs"},
            "all tuned": {"compile.mode": "max-autotune", "compile.scope": "model"},
        }.items()
    }
    assert compiler_s(make_cell(), device) == 0
    assert compiled["block"] == COMPILE_S[device]["inductor"] < compiled["model"] < compiled["tuned"]
    assert compiled["all tuned"] / compiled["model"] == compiled["tuned"] / compiled["block"]
    deep = make_cell(compile="inductor", leaves={"compile.scope": "model", "model.num_layers": 80})
    assert compiler_s(deep, device) > compiled["model"]
    assert compiler_s(make_cell(compile="thunder"), device) > compiled["block"]


def test_a_prompt_and_a_token_are_a_program_each():
    once_s, twice_s = (
        compiler_s(make_cell(compile="inductor", workload=name), "cuda") for name in ("train", "generate")
    )
    assert twice_s == 2 * once_s


@pytest.mark.parametrize(
    ("compiler", "scope", "workload", "taken_s"),
    [
        ("inductor", "block", "train", (10.0, 18.0)),
        ("thunder", "block", "train", (18.0, 25.0)),
        ("inductor", "model", "generate", (110.0, 115.0)),
        ("thunder", "model", "generate", (299.0, 301.0)),
    ],
)
def test_llama_on_an_h200_compiles_in_about_the_time_that_it_took_there(compiler, scope, workload, taken_s):
    """docs/results/2026-11-30-h200-healthy-cells.md, and litgpt-generate of that day: within half of it."""
    leaves = {"compile.scope": scope, "model.num_layers": 32}
    expected_s = compiler_s(make_cell(compile=compiler, workload=workload, leaves=leaves), "cuda")
    assert taken_s[0] / 1.5 < expected_s < 1.5 * taken_s[1]


def test_a_predicted_step_is_taken_a_lower_bound_doubled_and_an_unknown_one_judged_by_its_work():
    assert step_s(planned(0.5), "cuda") == 0.5
    assert step_s(replace(planned(), predicted={"step_time_s": 0.5, "bound": "lower"}), "cuda") == 1.0
    deep = planned(leaves={"model.num_layers": 40})
    assert step_s(deep, "cuda") > step_s(planned(), "cuda")
    assert step_s(planned(), "cpu") > step_s(planned(), "cuda")
    shared, alone = (planned(strategy=name, visible_devices=2) for name in ("ddp", "single"))
    assert step_s(shared, "cpu") == pytest.approx(step_s(alone, "cpu"))


def test_a_step_of_unknown_time_is_its_work_and_each_token_takes_the_host_its_time():
    def work_s(one):
        return hardware_flops_per_step(one.cell.config, one.cell.sizes) / FLOPS_PER_S["cpu"]

    training = planned(visible_devices=1)
    assert step_s(training, "cpu") == pytest.approx(work_s(training), rel=1e-12)
    for strategy in ("single", "fsdp_stage3"):
        one = planned(workload="generate", strategy=strategy, visible_devices=1)
        tokens_s = one.cell.config.generate.new_tokens * TOKEN_S
        assert step_s(one, "cpu") == pytest.approx(work_s(one) + tokens_s, rel=1e-12)


def test_a_generation_is_counted_in_samples_of_its_tokens():
    many, few = (planned(workload="generate", leaves={"generate.new_tokens": count}) for count in (1000, 10))
    assert step_s(many, "cuda") > 50 * step_s(few, "cuda")
    assert num_steps(many.cell) == (NUM_WARMUP_SAMPLES, many.cell.config.generate.num_samples - 1)


def test_samples_are_counted_as_the_worker_counts_them():
    from benchrunner.worker.workloads import generate

    assert generate.WARMUP_SAMPLES == NUM_WARMUP_SAMPLES


def test_a_sharded_generation_gathers_its_weights_for_each_token():
    whole, sharded = (
        planned(workload="generate", strategy=name, leaves={"model.d_model": 4096, "model.d_ff": 11008})
        for name in ("ddp", "fsdp_stage3")
    )
    gathered_bytes = linear_weight_bytes(sharded.cell.config.model, sharded.cell.config.precision)
    more_s = sharded.cell.config.generate.new_tokens * gathered_bytes / GATHERED_BYTES_PER_S["cuda"]
    assert step_s(sharded, "cuda") - step_s(whole, "cuda") == pytest.approx(more_s)
