import gc

import pytest

from benchrunner.worker.imports import uncollected


def test_garbage_is_left_alone_inside_and_looked_for_afterwards():
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_garbage_is_looked_for_after_an_import_that_failed():
    with pytest.raises(ModuleNotFoundError), uncollected():
        import no_such_package  # noqa: F401
    assert gc.isenabled()
