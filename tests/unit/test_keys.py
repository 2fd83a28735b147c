"""Keys of a run: private, stable over restarts, and a table of grants with clear errors."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from driftline.keys import RUN_KEYS, Grant, Keys, load, make_run_keys, new_pair, read_authorized
from driftline.rundir import RunDir, RunError


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    make_run_keys(run)
    return run


def test_every_run_key_exists_is_private_and_loads(run: RunDir) -> None:
    assert run.keys.stat().st_mode & 0o777 == 0o700
    pairs = {who: load(run, who) for who, *_ in RUN_KEYS}
    assert len({pair.public for pair in pairs.values()}) == len(RUN_KEYS)
    for path in run.keys.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path
    grants = read_authorized(run.keys / "authorized")
    assert grants[pairs["operator"].public] == Grant("operator", "local", pairs["operator"].public)
    assert pairs["server"].public not in grants
    assert "secret=..." in repr(pairs["server"])
    assert pairs["server"].secret not in repr(pairs["server"])


def test_keys_are_kept(run: RunDir) -> None:
    before = {path.name: path.read_bytes() for path in run.keys.iterdir()}
    make_run_keys(run)
    assert {path.name: path.read_bytes() for path in run.keys.iterdir()} == before


def test_two_who_start_together_agree(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    threads = [threading.Thread(target=make_run_keys, args=(run,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    grants = read_authorized(run.keys / "authorized")
    for who, role, *_ in RUN_KEYS:
        pair = load(run, who)
        assert role is None or grants[pair.public].role == role
    assert not [path for path in run.keys.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("text", ["", "public a\nsecret b\n", "nonsense", "public \nsecret \n"])
def test_a_broken_key_file_is_one_sentence(run: RunDir, text: str) -> None:
    (run.keys / "viewer.key").write_text(text)
    with pytest.raises(RunError, match=r"viewer\.key: not a key file"):
        load(run, "viewer")


def test_halves_of_different_pairs_are_refused(run: RunDir) -> None:
    one, two = new_pair(), new_pair()
    (run.keys / "viewer.key").write_text(f"public {one.public}\nsecret {two.secret}\n")
    with pytest.raises(RunError, match="not a key file"):
        load(run, "viewer")


def test_a_missing_key_file_is_one_sentence(run: RunDir) -> None:
    with pytest.raises(RunError, match=r"absent\.key: the key cannot be read: No such file"):
        load(run, "absent")


@pytest.mark.parametrize("line", ["boss me KEY", "viewer me", "viewer me short", "viewer a b KEY"])
def test_a_wrong_line_of_the_table_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "authorized"
    path.write_text("# comment\n\n" + line.replace("KEY", new_pair().public) + "\n")
    with pytest.raises(RunError, match=r"authorized: line 3: expected 'role name public-key' with a role of producer,"):
        read_authorized(path)


def test_rights_of_roles() -> None:
    engine = Grant("producer", "engine-*", "e")
    viewer, operator = Grant("viewer", "v", "v"), Grant("operator", "o", "o")
    assert engine.may_produce("engine-0")
    assert not engine.may_produce("trainer")
    assert not engine.may_produce("Engine-0")
    assert not viewer.may_produce("v")
    assert not operator.may_produce("o")
    assert [g.may_watch for g in (engine, viewer, operator)] == [False, True, True]
    assert [g.may_command for g in (engine, viewer, operator)] == [False, False, True]


def test_a_pair_is_a_pair() -> None:
    pair = new_pair()
    assert isinstance(pair, Keys)
    assert len(pair.public) == len(pair.secret) == 40
