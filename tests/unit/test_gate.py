"""The gate before corrections: which backends pass, fail, or have not been measured enough."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from console.cli.verbs.correction import require_consent
from console.errors import NOT_ENOUGH_DATA, NOT_PARITY, CommandError
from console.parity import gate
from console.parity.gate import JUDGED, Verdict, backend_verdict, needs_consent, verdict_of_frames
from console.parity.rules import load
from console.store.model import RunModel
from driftline.catalog.corrections import BY_ID
from driftline.frames import EngineFix, FixState, Frame, Metrics, Stamped, encode
from tests.unit.parity_curves import healthy

WINDOW = load().window
FAILS = Verdict(False, "mismatch/abs_diff_mean is .16 over steps 1 to 10, limit .03")
UNKNOWN = Verdict(None, "3 of 10 steps")


def metrics(values: list[float], first: int = 1, kl: float | None = 1e-4) -> list[Frame]:
    extra = {} if kl is None else {"mismatch/kl_k3": kl}
    return [
        Metrics(step, step, 0.0, {"mismatch/abs_diff_mean": value, **extra}) for step, value in enumerate(values, first)
    ]


def switched(step: int) -> FixState:
    engines = (EngineFix("engine-0", "on", "live", step, step),)
    return FixState("processed-logprobs", "on", 1, "op", 0.0, "live", engines)


def both(frames: list[Frame]) -> Verdict:
    """By way of frames (command line) and of the model (screens): one verdict."""
    model = RunModel()
    for seq, frame in enumerate(frames, 1):
        model.apply(Stamped(seq, 0.0, "trainer", msgspec.Raw(encode(frame))))
    verdict = backend_verdict(model)
    assert verdict == verdict_of_frames(frames)
    return verdict


@pytest.mark.parametrize("size", [0.0, 4e-7, 0.005, 0.029])
def test_a_backend_within_the_published_limit_passes(size: float) -> None:
    verdict = both(metrics([size] * 12))
    assert (verdict.passes, verdict.asks, verdict.word) == (True, False, "pass")


def test_a_number_just_beyond_the_limit_is_shown_as_another() -> None:
    assert both(metrics([0.0301] * WINDOW)).why.startswith("mismatch/abs_diff_mean is .0301 over")


@pytest.mark.parametrize("size", [0.031, 0.074, 0.16, 2.0, math.nan, math.inf])
def test_a_backend_beyond_it_fails_with_number_and_steps(size: float) -> None:
    verdict = both(metrics([0.0] * 20 + [size] * WINDOW))
    assert verdict.passes is False
    assert verdict.why.startswith("mismatch/abs_diff_mean is ")
    assert f"over steps 21 to {20 + WINDOW}, limit .03" in verdict.why


def test_a_few_very_wrong_tokens_fail_by_the_kl_while_the_mean_is_small() -> None:
    verdict = both(metrics([0.01] * 12, kl=0.05))
    assert verdict.passes is False
    assert verdict.why.startswith("mismatch/kl_k3 is .05")


def test_a_trainer_that_reports_no_kl_is_judged_by_the_mean() -> None:
    assert both(metrics([0.01] * 12, kl=None)).passes is True


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([], "no mismatch/abs_diff_mean has been reported"),
        (metrics([0.0] * 9), "9 of 10 steps"),
        ([*metrics([0.0] * 30), switched(25)], "5 of 10 steps since a fix changed at step 25"),
        ([*metrics([0.0] * 30), switched(30)], "no mismatch/abs_diff_mean has been reported since a fix changed"),
        ([*metrics([0.0] * 30), Metrics(50, 50, 0.0, {"reward/mean": 1.0})], "since step 30, the run is at step 50"),
    ],
)
def test_what_has_not_been_measured_has_not_passed(frames: list[Frame], says: str) -> None:
    verdict = both(frames)
    assert verdict.passes is None
    assert verdict.asks
    assert says in verdict.why


def test_only_steps_since_the_newest_change_of_a_fix_count() -> None:
    broken_then_right = metrics([0.16] * 20 + [0.0] * WINDOW)
    assert both([*broken_then_right, switched(20)]).passes is True
    # Two steps' worth of tokens that were sampled before the switch arrive after it.
    straddling = metrics([0.16] * 22 + [0.0] * (WINDOW - 2))
    assert both([*straddling, switched(20)]).passes is True


@pytest.mark.slow
def test_healthy_runs_pass_and_shifted_ones_are_caught() -> None:
    for seed in range(200):
        size = healthy(seed)["mismatch/abs_diff_mean"]
        assert gate.judge({JUDGED[0]: list(enumerate(size, 1))}, since=-1, step=len(size)).passes is True
        wrong = np.maximum(size + 0.04, 0)
        assert gate.judge({JUDGED[0]: list(enumerate(wrong, 1))}, since=-1, step=len(size)).passes is False


@pytest.mark.parametrize("verdict", [FAILS, UNKNOWN])
def test_every_correction_but_off_needs_consent_until_the_backend_passes(verdict: Verdict) -> None:
    assert {value: needs_consent(value, verdict) for value in BY_ID} == {value: value != "off" for value in BY_ID}
    assert not any(needs_consent(value, Verdict(True, "")) for value in BY_ID)


@pytest.mark.parametrize(("verdict", "code"), [(FAILS, NOT_PARITY), (UNKNOWN, NOT_ENOUGH_DATA)])
def test_without_a_terminal_it_takes_a_word_on_the_command_line(verdict: Verdict, code: int, capsys) -> None:
    with pytest.raises(CommandError, match="--despite-parity does it nevertheless") as failure:
        require_consent("tis", verdict, despite=False, ask=None)
    assert failure.value.exit_code == code
    assert verdict.why in str(failure.value)
    require_consent("tis", verdict, despite=True, ask=None)
    assert verdict.why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answers", "asked"),
    [(["y", "tis"], 2), (["yes\n", " tis\n"], 2), (["", "tis"], 1), (["n"], 1), (["y", "y"], 2), (["y", ""], 2)],
)
def test_on_a_terminal_it_is_asked_twice_the_second_time_for_its_name(answers: list[str], asked: int) -> None:
    given, questions = iter(answers), []

    def ask(question: str) -> str:
        questions.append(question)
        return next(given)

    if [answer.strip() for answer in answers] in (["y", "tis"], ["yes", "tis"]):
        require_consent("tis", FAILS, despite=False, ask=ask)
    else:
        with pytest.raises(CommandError, match=r"not (switched on|confirmed)"):
            require_consent("tis", FAILS, despite=False, ask=ask)
    assert len(questions) == asked
