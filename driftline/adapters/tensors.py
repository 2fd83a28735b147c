"""Tensors of a framework as numpy arrays, without an import of torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def array(values: Any) -> npt.NDArray[Any]:
    """An array of a tensor on any device and of any type (bfloat16 as float32), or of what numpy takes."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        values = values.numpy()
    return np.asarray(values)
