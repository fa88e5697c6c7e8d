import pytest

from benchrunner.config import keys
from benchrunner.core.errors import ConfigError


def test_leaves_are_dotted_and_lists_are_leaves():
    assert keys.flatten({"a": {"b": 1, "c": [1, {"d": 2}]}, "e": None}) == {"a.b": 1, "a.c": [1, {"d": 2}], "e": None}


@pytest.mark.parametrize("key", ["seq_len", "model", "model.d_model", "hardware.peak_flops.bf16", "sweep.exclude"])
def test_keys_and_sections_of_the_schema_exist(key):
    keys.check_key(key)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("sec_len", r"^sec_len: no such key \(did you mean seq_len\?\); groups and keys: seq_len, model, "),
        ("modle", r"did you mean model\?"),
        ("model.heads", r"did you mean model\.\w*heads\?\); keys of model: num_heads, head_bias, "),
        ("d_model", r"did you mean model.d_model\?"),
        (
            "model.d_model.x",
            r"^model\.d_model\.x: no such key \(did you mean model\.d_model\?\); groups and keys: model, ",
        ),
        ("a.b.c", r"^a\.b\.c: no such key; groups and keys: model, .* \(bench --cfg job shows all \d\d\)$"),
        ("a.b.seeds", "groups and keys: seed, model, "),
        ("batch", r"did you mean micro_batch_size\?\); groups and keys: "),
        ("optimizer.learning_rate", r"did you mean optimizer\.lr\?\); keys of optimizer: "),
        ("model.batch", r"did you mean model\.\w+\?\); keys of model: "),
        ("limits.description", r"did you mean limits\.\w+\?\); keys of limits: "),
        ("seq_len.x", "no such key"),
    ],
)
def test_another_key_is_named_with_its_neighbours(key, message):
    with pytest.raises(ConfigError, match=message):
        keys.check_key(key)


def test_rules_about_values_are_found_beside_their_keys():
    allowed = keys.allowed_values.__wrapped__()
    assert keys.leaf_types.__wrapped__() == keys.leaf_types()
    assert allowed.keys() <= keys.leaf_types().keys() and keys.EVERY in keys.leaf_types()
    assert allowed["compat"].choices == ("enforce", "probe") and allowed["model.d_model"].above == 0
    assert (allowed["model.dropout"].least, allowed["model.dropout"].below) == (0, 1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.norm", "batchnorm", "not one of rmsnorm, layernorm"), ("seq_len", 0, "must be greater than 0"),
        ("optimizer.lr", 0.0, "must be greater than 0"), ("retries", -1, "must be 0 or more"),
        ("model.dropout", 1.0, "must be less than 1"), ("workload.lora_dropout", 1, "must be less than 1"),
        ("timeout_s", float("inf"), "not a finite number"),
    ],
)  # fmt: skip
def test_wrong_values_are_told_what_is_allowed(key, value, message):
    with pytest.raises(ConfigError, match=f"^{key}: .*{message}"):
        keys.check_value(key, value)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("micro_batch_size", "an integer, max or best"), ("seq_len", "an integer or null"), ("timeout_s", "a number"),
        ("model.bias", "true or false"), ("compile.dynamic", "true or false or null"), ("out_dir", "text"),
        ("sweep.include", "a list of mappings"), ("launcher.setup", "a list of texts"),
        ("hardware.peak_flops", "a mapping"), ("hardware.peak_flops.bf16", "a number"),
    ],
)  # fmt: skip
def test_types_have_names(key, name):
    assert keys.type_name(key) == name


def test_null_is_no_wrong_value():
    keys.check_values({"seq_len": None, "compile": {"mode": None}, "activation_checkpointing": {"every": None}})


@pytest.mark.parametrize("every", ["per_op", "1/2", "3/3", "2/7"])
def test_fractions_of_the_blocks(every):
    keys.check_value(keys.EVERY, every)


@pytest.mark.parametrize("every", ["0/2", "3/2", "1/0", "half", "1/2/3", "-1/2", "0.5", ""])
def test_what_is_no_fraction_of_the_blocks(every):
    with pytest.raises(ConfigError, match=r"^activation_checkpointing\.every: .* is neither per_op"):
        keys.check_value(keys.EVERY, every)
