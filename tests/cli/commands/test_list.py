def test_list_shows_a_group_or_all(bench):
    assert "fsdp_stage2  gradients" in bench("list", "strategy")[1]
    assert "+sweeps=\n" in bench("list")[1]


def test_list_shows_the_groups_that_are_named_alone(bench):
    lines = bench("list", "strategy", "compile")[1].splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["strategy=", "compile="]


def test_a_group_that_is_none_is_refused(refused):
    refused(["list", "stratgy"], r"did you mean strategy\?")
