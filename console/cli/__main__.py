"""`python -m console.cli`: the same as the installed `driftline`."""

import sys

from console.cli.entry import main

sys.exit(main())
