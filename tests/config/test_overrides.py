"""What one override means, and what is said of one that means nothing."""

import pytest

from benchrunner.config.hydra_app import expand as expand_words
from benchrunner.config.hydra_app import meant_by_bare_word, read_values
from benchrunner.core.errors import ConfigError, UsageError


def expand(*words, multirun=True):
    return expand_words(words, multirun=multirun).rows


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seq_len==5"], "seq_len: 'seq_len==5' has two equals signs; write seq_len=5"),
        (["seq_len=="], "seq_len: 'seq_len==' has two equals signs; write seq_len=VALUE"),
        (["seed=1,", "2,3"], "seed: 'seed=1,' ends in a comma; a list has no spaces: seed=1,2,3"),
        (["seed=1,", "seq_len=2"], "seed: 'seed=1,' ends in a comma; a list has no spaces: seed=1"),
        (["seed=range(1,", "3)"], "seed: 'seed=range(1,' ends in a comma; a list has no spaces: seed=range(1,3)"),
        (
            ["model.source=a=b=("],
            "model.source: cannot read 'model.source=a=b=(': mismatched input '=' expecting <EOF>",
        ),
        (["seed=1,2,"], "seed: 'seed=1,2,' ends in a comma; a list has no spaces: seed=1,2"),
        (
            ["seed=1 model.d_ff=8 seq_len=2"],
            "'seed=1 model.d_ff=8 seq_len=2' is one quoted argument; write its overrides apart: seed=1 model.d_ff=8 …",
        ),
        (["seed= 1"], "seed: 'seed= 1' has spaces around it; write seed=1"),
        (["seed =1"], "seed: 'seed =1' has spaces around it; write seed=1"),
        (["out_dir=~"], "out_dir: the shell expands no ~ behind '='; write out_dir=$HOME"),
        (["out_dir=~/a/b"], "out_dir: the shell expands no ~ behind '='; write out_dir=$HOME/a/b"),
        (["seed="], "seed: 'seed=' has no value; write seed=VALUE"),
        (["~seed="], "seed: '~seed=' deletes a key, which every cell needs; write seed=value"),
        (["ddp"], "'ddp' is neither key=value nor a flag (did you mean strategy=ddp?); see bench --help"),
        (["seed=interval(1,2"], "seed: interval() names no values; write a list or range(start,stop,step)"),
        (["seed=interval(1,2)"], "seed: interval() names no values; write a list or range(start,stop,step)"),
        (["sweep=smoke"], "sweep: a declared sweep is +sweeps=smoke, and a sweep's file its path"),
        (["sweep=5"], "sweep: '5' is no value for a section; name one of its keys"),
        (["+seed=2"], "seed: exists already; write it without the +"),
        (["+strategy=ddp"], "strategy: has an option already; write strategy=ddp"),
        (["++strategy=ddp,single"], "strategy: has an option already; write strategy=ddp,single"),
        (["model@x=debug"], "model: 'model@x=debug' renames a package; write model=value"),
        (["hydra=x"], "hydra: bench does not run through Hydra's machinery; use out_dir and -m"),
        (["hydra/sweeper=x"], "hydra/sweeper: bench does not run through Hydra's machinery; use -m or +sweeps=NAME"),
        (["seed=range(5,1)"], "seed: range(5,1) matches nothing"),
        (["model=[a,b]"], "model: [a,b]: a list is no sweep; write model=a,b and add -m"),
        (["model={a:b}"], "model: {a:b}: name an option, and set its keys with model.KEY=value"),
        (
            ["predict=analytic,off"],
            "predict: does not tell cells apart, so one sweep has one value; run a sweep for each",
        ),
        (["model.description=x"], "model.description: belongs to the option file; choose with model=OPTION"),
        (["seed=[1,2]"], "seed: [1,2] is not an integer; a list is no sweep, write seed=a,b and add -m"),
        (["sweep.include=[a]"], "sweep.include: [a] is not a list of mappings"),
        (["launcher.setup=[{a: 1}]"], "launcher.setup: {'a': 1} is no text, in a list of texts"),
        (["hardware.peak_flops=5"], "hardware.peak_flops: 5 is not a mapping"),
        (["measure.steps='???'"], "measure.steps: has no value"),
    ],
)
def test_what_is_wrong_with_a_word_names_its_key_and_the_way_out(words, message):
    with pytest.raises(UsageError) as refusal:
        expand(*words)
    assert str(refusal.value) == message


def test_of_an_option_only_its_name_is_matched():
    with pytest.raises(ConfigError, match=r"^compile: no option 'true'"):
        expand("compile=true")
    with pytest.raises(ConfigError, match=r"^model: no option '0.5'"):
        expand("model=0.5")
    with pytest.raises(ConfigError, match=r"^model: no option 'a b'"):
        expand("model='a b'")


def test_another_tools_word_for_an_option_is_known():
    with pytest.raises(
        ConfigError, match=r"^strategy: no option 'zero2' \(did you mean strategy=fsdp_stage2\?\); allowed"
    ):
        expand("strategy=zero2")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("seed=4", {"seed": 4}),
        ("++seed=4", {"seed": 4}),
        ("timeout_s=4", {"timeout_s": 4.0}),
        ("model.source='a b=c'", {"model.source": "a b=c"}),
        ("launcher.setup=[a,'b c=d']", {"launcher.setup": ["a", "b c=d"]}),
        ("sweep.include=[{seed: 1, model: debug}]", {"sweep.include": [{"seed": 1, "model": "debug"}]}),
        ("+hardware.peak_flops.bf16=3", {"hardware.peak_flops.bf16": 3.0}),
        ("hardware.peak_flops={bf16: 3}", {"hardware.peak_flops.bf16": 3.0}),
        ("generate={top_k: 2, temperature: 0}", {"generate.top_k": 2, "generate.temperature": 0.0}),
    ],
)
def test_a_word_is_read_as_its_keys_type(word, meant):
    assert read_values([word]) == meant


def test_a_list_is_a_plain_one():
    assert type(read_values(["launcher.setup=[a]"])["launcher.setup"]) is list


def test_a_value_is_checked_where_nothing_is_composed():
    with pytest.raises(ConfigError, match=r"^micro_batch_size: 0 is not allowed, must be greater than 0$"):
        read_values(["micro_batch_size=0"])


def test_options_that_are_named_are_composed():
    [row] = expand("strategy=ddp", "model=gpt2-125m", multirun=False)
    assert (row.axes["strategy"], row.config.model.num_layers) == ("ddp", 12)


def test_a_name_of_ones_own_is_composed():
    [row] = expand("+hardware.peak_flops.mine=1e15", multirun=False)
    assert row.config.hardware.peak_flops == {"mine": 1e15}


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("model:debug", "model=debug"), ("2:x", None), (":x", None),
        ("model:a:b", "model=a:b"), ("smoke", "+sweeps=smoke"), ("ddp", "strategy=ddp"),
        ("zero2", "strategy=fsdp_stage2"), ("qlora", "workload=lora precision=nf4"), ("nothing", None),
        ("none", "activation_checkpointing=none"), ("model", "model=VALUE"), ("optim", "optimizer=VALUE"),
        ("false", "strategy=single or compile=eager"),
    ],
)  # fmt: skip
def test_what_a_bare_word_means(word, meant):
    assert meant_by_bare_word(word) == (f" (did you mean {meant}?)" if meant else "")


OF_A_PLAN = "goes on with a sweep by its plan; what bench plan --json printed is run by its overrides"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("a b", "a sweep's directory; bench resume 'a b' goes on with it, bench report 'a b' shows it"),
        ("a b/", "a sweep's directory; bench resume 'a b' goes on with it, bench report 'a b' shows it"),
        ("a b/plan.json", f"bench resume 'a b' {OF_A_PLAN}"), ("kept.json", f"bench resume DIR {OF_A_PLAN}"),
        ("plan.json", None), ("kept.txt", None), ("folder.json", None), (".", None),
    ],
)  # fmt: skip
def test_a_plan_in_the_place_of_an_override_is_gone_on_with(tmp_path, monkeypatch, word, meant):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "a b").mkdir()
    for name in ("a b/plan.json", "kept.json", "kept.txt"):
        (tmp_path / name).touch()
    assert meant_by_bare_word(word) == (f" ({meant})" if meant else "")


def test_a_word_may_be_longer_than_any_name_of_a_file():
    assert meant_by_bare_word("a" * 300) == ""


def test_a_mapping_holds_nothing_of_the_one_before():
    read = [expand("launcher=slurm", f"launcher.sbatch={value}")[0] for value in ("{x:a}", "{y:b}")]
    assert [row.config.launcher.sbatch for row in read] == [{"x": "a"}, {"y": "b"}]
