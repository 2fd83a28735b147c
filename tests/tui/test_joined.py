"""Engines that joined by themselves, in a run without a trainer: listed, partial where they differ, and acted upon."""

from __future__ import annotations

from console.tui.dialogs.confirm import ConfirmScreen
from driftline.frames import EngineFix, EngineState, FixState
from tests.tui.conftest import Running, press, screen_text
from tests.tui.synthetic import START, FakeSource

SETTINGS = "logprobs raw_logprobs; head bfloat16, body bfloat16; prefix cache on; async scheduling on"
WHY = "the head's dtype is fixed when the model is loaded: --hf-overrides"


def engine(name: str, phase: str = "running") -> EngineState:
    return EngineState(
        name, phase, -1, START, 3, 0, 0.2, 0.5, 900.0, 0, "gpu-7", 41, "cuda", "0.28.0", settings=SETTINGS,  # type: ignore[arg-type]  # a test's word
    )  # fmt: skip


def joined(phase: str = "running") -> FakeSource:
    """Two engines: on one the logprobs are processed, on the other its workers do not say."""
    source = FakeSource()
    source.feed([engine("engine-0", phase), engine("engine-1", phase)], producer="engine-0")
    reports = (
        EngineFix("engine-0", "on", "live", -1, -1, "logprobs_mode=processed_logprobs"),
        EngineFix("engine-1", "", "not_available", -1, -1, "its workers cannot be asked"),
    )
    source.feed([FixState("processed-logprobs", "on", 1, "operator ana", START, "live", reports)], producer="engine-1")
    heads = tuple(EngineFix(f"engine-{i}", "off", "not_available", -1, -1, WHY) for i in range(2))
    source.feed([FixState("fp32-lm-head", "off", 0, "", START, "not_available", heads)], producer="engine-1")
    values = (EngineFix("engine-0", "off", "live"), EngineFix("engine-1", "salted", "live"))
    source.feed([FixState("prefix-cache-off", "off", 0, "", START, "live", values)], producer="engine-1")
    return source


async def test_the_engines_screen_lists_them_and_says_how_they_are_set(running: Running) -> None:
    async with running(joined(), (120, 40)) as pilot:
        text = await press(pilot, "6")
        assert "engine-0" in text
        assert "engine-1" in text
        assert "v-1" not in text
        assert "weight version not reported" in text
        words = " ".join(text.split())
        assert "joined by itself, set to logprobs raw_logprobs" in words


async def test_a_fix_that_one_engine_has_is_partial_and_what_cannot_be_switched_says_why(running: Running) -> None:
    async with running(joined(), (120, 40)) as pilot:
        text = await press(pilot, "4")
        assert "on 1/2" in text
        assert "its workers cannot be asked" in text
        assert "--hf-overrides" in text
        assert "engines came with different values" in text


async def test_it_can_be_acted_upon_without_a_trainer(running: Running) -> None:
    source = joined()
    async with running(source, (120, 40)) as pilot:
        await press(pilot, "P")
        assert isinstance(pilot.app.screen, ConfirmScreen)
        assert "pause generation" in screen_text(pilot)
        await press(pilot, "tab", "enter")
        assert [verb for verb, _, _ in source.sent] in ([], ["pause"])


async def test_paused_engines_are_resumed_by_the_same_key(running: Running) -> None:
    async with running(joined("paused"), (120, 40)) as pilot:
        await press(pilot, "P")
        assert "resume generation" in screen_text(pilot)
