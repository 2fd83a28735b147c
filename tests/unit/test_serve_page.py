"""What of the operator's configuration reaches the console behind a page."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from console.settings.file import Settings
from console.web.child import Page, console
from tests.tui.synthetic import FakeSource


def test_a_page_looks_as_the_operator_has_configured_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    rules = tmp_path / "rules.toml"
    rules.write_text("[rules.kl-spike]\nenabled = false\n")
    settings = Settings(theme="mono", marker="ascii", fps=9, smoothing=0.9, keys={"live.follow": "F5"}, mouse=True)
    page = msgspec.json.decode(Page("runs/demo-7f3a", settings, rules=str(rules)).argument(), type=Page)
    assert page.settings == settings
    app = console(FakeSource(operator=False), None, page)
    assert (app.look.name, app.glyphs.name, app.fps, app.live.view.weight) == ("mono", "ascii", 9, 0.9)
    assert next(key.shown for key in app.keys if (key.where, key.id) == ("live", "follow")) == "F5"
    guard = app.showing.guard
    assert guard is not None
    assert not guard.sentinels.rules.rules["kl-spike"].enabled
    app.history.add("theme dark")
    assert not (tmp_path / "driftline").exists(), "what is typed into a page is kept in no file"
