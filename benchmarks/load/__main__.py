"""`python -m benchmarks.load TASK`: the client of a WebSocket proxy."""

from __future__ import annotations

import sys

from benchmarks.load import stage
from benchmarks.load.kinds import make_driver

if __name__ == "__main__":
    stage.main(make_driver, sys.argv[1:])
