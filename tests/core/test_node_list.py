import pytest

from benchrunner.core.node_list import expand, hosts_of, nodes_of


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ("", []),
        ("a1", ["a1"]),
        ("gpu[08-10,2],login", ["gpu08", "gpu09", "gpu10", "gpu2", "login"]),
        ("r[1-2]n[0-1]-ib", ["r1n0-ib", "r1n1-ib", "r2n0-ib", "r2n1-ib"]),
        ("n[a-b]", ["na-b"]),
    ],
)
def test_a_list_of_nodes_as_names(listed, names):
    assert expand(listed) == names


def test_what_an_allocation_names():
    environ = {"SLURM_JOB_NODELIST": "a[1-2]", "SLURMD_NODENAME": "a1", "SLURM_SUBMIT_HOST": "login"}
    assert nodes_of(environ) == ["a1", "a2"] and set(hosts_of(environ)) == {"a1", "a2", "login"}
    assert nodes_of({}) == hosts_of({}) == []
