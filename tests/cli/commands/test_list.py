from benchrunner.config import hydra_app
from benchrunner.config.hydra_app import Option


def test_list_shows_a_group_or_all(bench):
    assert "fsdp_stage2  gradients" in bench("list", "strategy")[1]
    assert "+sweeps=\n" in bench("list")[1]


def test_list_shows_the_groups_that_are_named_alone(bench):
    lines = bench("list", "strategy", "compile")[1].splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["strategy=", "compile="]


def test_a_group_that_is_none_is_refused(refused):
    refused(["list", "stratgy"], r"did you mean strategy\?")


def test_options_stand_in_columns_and_descriptions_are_wrapped_beside_them(bench, monkeypatch):
    options = {
        "one": [Option(name="a", description="word " * 12), Option(name="bcd", description="short")],
        "sweeps": [],
    }
    monkeypatch.setattr(hydra_app, "list_groups", lambda: tuple(options))
    monkeypatch.setattr(hydra_app, "list_options", options.__getitem__)
    monkeypatch.setenv("COLUMNS", "50")
    first, second = " ".join(["word"] * 8), " ".join(["word"] * 4)
    assert bench("list")[1].splitlines() == ["one=", f"  a    {first}", f"       {second}", "  bcd  short", "+sweeps="]
    monkeypatch.setenv("COLUMNS", "10")
    assert bench("list", "one")[1].splitlines()[1] == f"  a    {first}", "forty columns at least"
