"""`python -m benchrunner` is the same command as `bench`."""

import sys

from benchrunner.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
