"""`python -m featbench`."""

import sys

from featbench.cli.main import main

sys.exit(main())
