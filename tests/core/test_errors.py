from benchrunner.core.errors import ConfigError, DamagedFile, Unsupported, did_you_mean


def test_a_wrong_key_is_named_where_there_is_one():
    assert (str(ConfigError("seq_len", "too long")), ConfigError("seq_len", "too long").key) == (
        "seq_len: too long",
        "seq_len",
    )
    assert str(ConfigError("", "no sweep")) == "no sweep"


def test_what_cannot_work_has_a_code_and_a_sentence():
    error = Unsupported("missing.bitsandbytes", "no module")
    assert (str(error), error.code) == ("no module", "missing.bitsandbytes")


def test_the_closest_of_what_is_allowed_is_offered_and_only_where_it_is_close():
    allowed = ["single", "ddp", "fsdp_stage2", "fsdp_stage3"]
    assert did_you_mean("fsdp_stage", allowed) == " (did you mean fsdp_stage3?)"
    assert did_you_mean("dpd", allowed) == " (did you mean ddp?)"
    assert did_you_mean("zzz", allowed) == did_you_mean("sin", ["singular-value"]) == ""


def test_damage_is_one_short_line():
    assert len(str(DamagedFile("x" * 5000))) <= 200 and "\n" not in str(DamagedFile("a\nb"))
