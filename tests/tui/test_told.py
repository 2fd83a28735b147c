"""Paths in a footer: short below the working directory and home, whole elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.tui.terminal.short_path import short_path


def test_a_path_is_as_short_as_a_shell_here_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here = tmp_path / "home" / "work"
    here.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(here)
    assert short_path(here / "runs" / "a" / "t.csv") == "runs/a/t.csv"
    assert short_path(str(tmp_path / "home" / "other.csv")) == "~/other.csv"
    assert short_path(tmp_path / "t.csv") == str(tmp_path / "t.csv")


def test_a_working_directory_that_is_gone_leaves_the_path_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert short_path(tmp_path / "t.csv") == str(tmp_path / "t.csv")
