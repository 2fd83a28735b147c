"""Comparisons that are run by hand (`make bench`); all of them on a terminal of true colours."""

import os

os.environ["TEXTUAL_COLOR_SYSTEM"] = "truecolor"
