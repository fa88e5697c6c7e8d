"""claims/N/: a new round begins when cells that have a verdict are to run again, as `bench resume` does."""

from benchrunner.core.paths import NUMBER, SweepPaths


def latest_round(paths: SweepPaths) -> int:
    """The newest round, counted from 1; 1 where there was none."""
    home = paths.claims(1).parent
    found = [int(path.name) for path in home.iterdir() if NUMBER.fullmatch(path.name)] if home.is_dir() else []
    return max(found, default=1)


def begin_round(paths: SweepPaths) -> None:
    """End the round of workers that may be there still: whoever calls this runs the cells alone."""
    if paths.claims(1).parent.is_dir():
        paths.claims(next_round(paths)).mkdir()


def next_round(paths: SweepPaths) -> int:
    """A round that nobody has begun."""
    return latest_round(paths) + 1 if paths.claims(1).parent.is_dir() else 1
