"""`python -m console.cli`: the same as the installed `driftline`."""

import sys

from console.cli.main import main

sys.exit(main())
