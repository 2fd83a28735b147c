"""Prometheus's text format, as far as numbers by name need it. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/: a line is `name{label="value",...} number [time]`, or a
comment after `#`. Only quotes separate labels; histograms are three names with suffixes.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import Final

_SAMPLE: Final = re.compile(r'([A-Za-z_:][\w:]*)(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?[ \t]+(\S+)', re.ASCII)


def samples(text: str, prefix: str) -> dict[str, list[float]]:
    """The finite values of every name that begins with `prefix`, whatever their labels, in the order of the text."""
    found: dict[str, list[float]] = defaultdict(list)
    for line in text.splitlines():
        if not line.startswith(prefix):
            continue
        sample = _SAMPLE.match(line)
        if sample is None:
            continue
        try:
            value = float(sample[2])
        except ValueError:
            continue
        if math.isfinite(value):
            found[sample[1]].append(value)
    return dict(found)
