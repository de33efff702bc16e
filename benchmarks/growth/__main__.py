"""Walk the growth, without the peers: `python -m benchmarks.growth [DIMENSION…] [--quick] [--long]`."""

import sys

from benchmarks.growth.run import main

sys.exit(main(sys.argv[1:]))
