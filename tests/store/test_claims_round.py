from benchrunner.core.paths import SweepPaths
from benchrunner.store.claims_round import latest_round, next_round


def test_rounds_are_counted_from_one_by_the_folders_of_their_claims(tmp_path):
    paths = SweepPaths(tmp_path)
    assert (latest_round(paths), next_round(paths)) == (1, 1)
    paths.claims(1).parent.mkdir(parents=True)
    assert (latest_round(paths), next_round(paths)) == (1, 2)
    for number in (1, 3, 2):
        paths.claims(number).mkdir()
    (paths.claims(1).parent / "odd").mkdir()
    assert (latest_round(paths), next_round(paths)) == (3, 4)
