"""The figure says what the numbers say, is well-formed, and fits where it is shown."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from console.parity.chart import MARK, SIGNS, chart
from console.parity.experiment import panels
from console.parity.figure import PANEL, WIDTH, Line, Panel, Scale, svg, vertical
from console.parity.rules import load
from tests.unit.parity_curves import as_run, healthy

LABELS = {"reference": "reference <on>", "defaults": "defaults & off", "repaired": "repaired"}
SVG = "{http://www.w3.org/2000/svg}"


def shown() -> list[Panel]:
    bad, mended = healthy(8), healthy(9)
    for values in bad.values():
        values *= 2
    bad["reward/mean"][5] = np.nan
    references = [as_run(f"r{seed}", healthy(seed)) for seed in range(3)]
    return panels(references, as_run("bad", bad), as_run("mended", mended), load())


def test_four_panels_with_band_and_three_curves() -> None:
    found = shown()
    assert [panel.title for panel in found] == ["clip fraction", "KL old‖new (k3)", "entropy", "reward"]
    for panel in found:
        assert [line.kind for line in panel.lines] == ["reference", "defaults", "repaired"]
        assert (panel.low < panel.lines[0].y).all()
        assert (panel.lines[0].y < panel.high).all()
        # Means stand in the middle of their windows of ten steps.
        assert (panel.x[0], panel.x[-1]) == (5.5, 85.5)


def test_the_document_is_well_formed_and_escapes_text() -> None:
    text = svg(shown(), heading='a <b> & "c"', labels=LABELS, mark=20, note="n")
    root = ElementTree.fromstring(text)
    words = [element.text for element in root.iter(f"{SVG}text")]
    assert 'a <b> & "c"' in words
    assert "reference <on>" in words
    assert len([e for e in root.iter(f"{SVG}path") if e.get("class") == "band"]) == 4
    assert len([e for e in root.iter(f"{SVG}path") if e.get("class") == "line defaults"]) == 4 + 1
    assert len([e for e in root.iter(f"{SVG}path") if e.get("class") == "mark"]) == 4 + 1
    assert "nan" not in text.lower().replace("nano", "")
    assert "prefers-color-scheme:dark" in text


def test_no_tick_runs_over_the_edge() -> None:
    """Eleven pixels high, a digit is seven wide at most."""
    line = Line("defaults", np.array([0.0, 100.0]), np.array([0.0, 1.0]))
    panels = [Panel("p", False, line.x, np.array([0.2, 0.2]), np.array([0.8, 0.8]), [line])] * 2
    root = ElementTree.fromstring(svg(panels, heading="", labels={}, mark=None, note=""))
    ticks = [e for e in root.iter(f"{SVG}text") if e.get("class") == "tick"]
    assert [e.text for e in ticks].count("step 100") == 2
    for tick in ticks:
        half = 7 * len(tick.text or "") * {"middle": 0.5, "end": 0.0}[tick.get("text-anchor", "")]
        assert float(tick.get("x", "")) + half <= WIDTH


def test_a_curve_is_drawn_where_its_values_are() -> None:
    line = Line("defaults", np.array([0.0, 10.0]), np.array([0.0, 1.0]))
    panel = Panel("p", False, line.x, np.array([0.2, 0.2]), np.array([0.8, 0.8]), [line])
    root = ElementTree.fromstring(svg([panel], heading="", labels={}, mark=None, note=""))
    path = next(e for e in root.iter(f"{SVG}path") if e.get("class") == "line defaults")
    (x0, y0), (x1, y1) = (map(float, part.split()) for part in (path.get("d") or "")[1:].split("L"))
    assert x1 - x0 == pytest.approx(PANEL[0], abs=0.1)
    up = vertical(panel)
    assert y0 - y1 == pytest.approx(PANEL[1] / (up.high - up.low), abs=0.2)


def test_a_curve_is_interrupted_where_it_is_no_number() -> None:
    line = Line("defaults", np.arange(4.0), np.array([1.0, np.nan, 2.0, 3.0]))
    panel = Panel("p", False, line.x, np.zeros(4), np.ones(4), [line])
    root = ElementTree.fromstring(svg([panel], heading="", labels={}, mark=None, note=""))
    path = next(e for e in root.iter(f"{SVG}path") if e.get("class") == "line defaults")
    assert (path.get("d") or "").count("M") == 2


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (Scale(0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (Scale(-3, 120), [0, 50, 100]),
        (Scale(0.004, 6, log=True), [0.01, 0.1, 1]),
        (Scale(0.02, 0.7, log=True), [0.03, 0.1, 0.3]),
    ],
)
def test_ticks_are_round(scale: Scale, expected: list[float]) -> None:
    assert scale.ticks() == pytest.approx(expected)


def test_positions() -> None:
    assert Scale(1, 100, log=True).at(np.array([1.0, 10.0, 1000.0])) == pytest.approx([0, 0.5, 1])
    assert np.isnan(Scale(1, 100, log=True).at(np.array([0.0, np.nan]))).all()


def test_no_panel_no_figure() -> None:
    with pytest.raises(ValueError, match="needs a panel"):
        svg([], heading="", labels={}, mark=None, note="")


def test_the_terminal_figure_fits_80_columns() -> None:
    labels = {"reference": "reference, all fixes on", "defaults": "vLLM's defaults", "repaired": "repaired live"}
    lines = chart(shown(), labels, 20)
    assert max(map(len, lines)) <= 80, "the legend too"
    assert all(label in " ".join(lines[:2]) for label in labels.values())
    plot = "\n".join(lines)
    assert all(SIGNS[kind] in plot for kind in labels)
    assert MARK in plot
    assert chart([], {}, None) == []
