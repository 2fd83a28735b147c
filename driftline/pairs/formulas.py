"""Numbers of one step from raw logprobs, computed once, in float64, before any truncation or clipping.

Names, formulas, limits and their sources are in `driftline.catalog.metrics`; this module is their only implementation.
Every array is one-dimensional over the response tokens of the step (natural logarithms, at the sampling
temperature), so that "token mean" weighs each token equally. An empty selection has no numbers: the names are
then left out rather than reported as zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Values = dict[str, float]


def mismatch(train: npt.ArrayLike, roll: npt.ArrayLike) -> Values:
    """`mismatch/*`: trainer's against engine's logprob of each token, both under the weights that sampled it.

    d = train - roll, r = exp(d). Raises ValueError for arrays of different length.
    """
    train64, roll64 = _pair(train, roll)
    if train64.size == 0:
        return {}
    d = train64 - roll64
    size = np.abs(d)
    ratio = np.exp(d)
    return {
        "mismatch/abs_diff_mean": float(size.mean()),
        "mismatch/abs_diff_p99": float(np.quantile(size, 0.99)),
        "mismatch/abs_diff_max": float(size.max()),
        "mismatch/kl_k3": float((np.expm1(d) - d).mean()),
        "mismatch/kl_k1": float(-d.mean()),
        "mismatch/mult_prob_error": float(np.exp(size).mean()),
        "mismatch/ratio_mean": float(ratio.mean()),
        "mismatch/ess": float(_effective_share(d)),
    }


def shadow(differences: npt.ArrayLike) -> Values:
    """`shadow/*` without the prefix, from |sampling engine's logprob - scoring engine's| of each token."""
    size = np.abs(np.asarray(differences, dtype=np.float64).ravel())
    if size.size == 0:
        return {"tokens": 0.0}
    return {
        "abs_diff_mean": float(size.mean()),
        "abs_diff_p99": float(np.quantile(size, 0.99)),
        "tokens": float(size.size),
    }


def staleness(now: npt.ArrayLike, train: npt.ArrayLike) -> Values:
    """`staleness/*`: trainer under the weights at the start of the step against those that sampled the token."""
    now64, train64 = _pair(now, train)
    if now64.size == 0:
        return {}
    return {"staleness/abs_diff_mean": float(np.abs(now64 - train64).mean())}


def version_lag(version: int, token_versions: npt.ArrayLike) -> Values:
    """`async/version_lag_*`: trainer's version at the start of the step minus each token's version."""
    lag = version - np.asarray(token_versions, dtype=np.int64)
    if lag.size == 0:
        return {}
    return {"async/version_lag_mean": float(lag.mean()), "async/version_lag_max": float(lag.max())}


def rewards(groups: npt.ArrayLike) -> Values:
    """`reward/*` from rewards [groups, samples]; std over all sequences, zero-std by group (exactly equal rewards)."""
    values = np.asarray(groups, dtype=np.float64)
    if values.size == 0:
        return {}
    flat = values.ravel()
    return {
        "reward/mean": float(flat.mean()),
        "reward/std": float(flat.std(ddof=1)) if flat.size > 1 else 0.0,
        "reward/zero_std_fraction": float((np.ptp(values, axis=1) == 0).mean()),
    }


def _effective_share(d: Array) -> float:
    # (sum r)^2 / (n sum r^2) does not change when every r is scaled: shifting d keeps exp() in range.
    weights = np.exp(d - d.max())
    return float(weights.sum() ** 2 / (weights.size * np.square(weights).sum()))


def _pair(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Array, Array]:
    a64, b64 = np.asarray(a, dtype=np.float64).ravel(), np.asarray(b, dtype=np.float64).ravel()
    if a64.size != b64.size:
        raise ValueError(f"{a64.size} logprobs against {b64.size}: one of each is needed for every token")
    return a64, b64
