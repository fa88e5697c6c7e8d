import types

import pytest

from benchrunner.worker.faults.patch import Patch, applied, in_module, spared


def make_module(**names):
    module = types.ModuleType("patched")
    vars(module).update(names)
    return module


def test_names_and_entries_are_replaced_inside_alone():
    module, registry = make_module(number=1), {"a": 1, "b": 2}
    with applied([in_module(module, "number", 2), Patch(registry, "a", 3)]):
        assert (module.number, registry) == (2, {"a": 3, "b": 2})
    assert (module.number, registry) == (1, {"a": 1, "b": 2})


def test_everything_is_put_back_after_an_error():
    module = make_module(number=1)
    with pytest.raises(ZeroDivisionError), applied([in_module(module, "number", 2)]):
        raise ZeroDivisionError
    assert module.number == 1


def test_a_name_that_is_not_there_replaces_nothing():
    module = make_module(number=1)
    with (
        pytest.raises(KeyError, match="nummer"),
        applied([in_module(module, "number", 2), in_module(module, "nummer", 2)]),
    ):
        pass
    assert vars(module).get("nummer") is None and module.number == 1


def test_a_spared_function_runs_among_the_originals():
    module = make_module(number=1)
    module.read = lambda: module.number
    patches = [in_module(module, "number", 2)]
    with applied([*patches, spared(module, "read", patches)]):
        assert module.number == 2
        assert module.read() == 1
        assert module.number == 2
