"""The command line's language, the history, the palette's matching and the key map: all pure."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from console.cli.arguments import TABLES
from console.cli.options import THEMES as CLI_THEMES
from console.export.schema import TABLES as EXPORTED
from console.settings.file import WEIGHTS as CONFIG_WEIGHTS
from console.settings.keymap import KeymapError, ident, mapped
from console.settings.keys import KEYS
from console.tui.chart.view import WEIGHTS
from console.tui.command import grammar
from console.tui.command.command import GrammarError, Known, Request
from console.tui.command.fuzzy import match
from console.tui.command.history import KEPT, History, default_path
from console.tui.command.table import COMMANDS
from console.tui.paint.theme import THEMES
from console.tui.widgets.line_edit import Line

KNOWN = Known(
    fixes={"processed-logprobs": ("off", "on"), "prefix-cache-off": ("off", "on", "removed")},
    runs=("demo-7f3a", "other-1"),
    shown="demo-7f3a",
    references=("ref-1",),
    themes=THEMES,
    step=812,
    switches=(12,),
)


@pytest.mark.parametrize(
    ("line", "name", "args"),
    [
        ("fix processed-logprobs on", "fix", ("processed-logprobs", "on")),
        ("fix proc", "fix", ("processed-logprobs", None)),
        ("fix", "fix", (None, None)),
        (":sync", "sync", None),
        ("pause", "pause", None),
        ("resume", "resume", None),
        ("stop", "stop", None),
        ("export", "export", ("metrics", "parquet", (None, None))),
        ("export csv", "export", ("metrics", "csv", (None, None))),
        ("export arrow tokens steps 100..200", "export", ("tokens", "arrow", (100, 200))),
        ("export parquet steps 100..", "export", ("metrics", "parquet", (100, None))),
        ("export ndjson steps ..7", "export", ("metrics", "ndjson", (None, 7))),
        ("goto 812", "goto", 812),
        ("screen tokens", "screen", "tokens"),
        ("run other-1", "run", "other-1"),
        ("runs", "runs", None),
        ("overlay other-1", "overlay", "other-1"),
        ("overlay off", "overlay", ""),
        ("theme light", "theme", "light"),
        ("marker ascii", "marker", "ascii"),
        ("mark what is  this", "mark", "what is this"),
        ("reference ref-1", "reference", "ref-1"),
        ("reference off", "reference", ""),
        ("alarms", "alarms", None),
        ("help", "help", None),
        ("q", "quit", None),
        ("them light", "theme", "light"),
    ],
)
def test_a_line_means_one_command_with_its_arguments(line: str, name: str, args: object):
    assert grammar.parse(line, KNOWN) == Request(grammar.BY_NAME[name], args)


@pytest.mark.parametrize("line", ["", "  "])
def test_an_empty_line_asks_for_nothing(line: str):
    assert grammar.parse(line, KNOWN) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fly", "no command 'fly'; tab or :help shows what there is"),
        ("ru", "no command 'ru'; there are: run, runs"),
        ("syn", "no command 'syn'; there are: sync"),
        ("fix p on", "'p' could be: processed-logprobs, prefix-cache-off"),
        ("fix nope on", "unknown fix 'nope'; one of: processed-logprobs, prefix-cache-off"),
        ("fix processed-logprobs maybe", "processed-logprobs cannot be 'maybe'; it can be: off, on"),
        ("fix processed-logprobs on now", ":fix takes 2 words more; 'now' is too many"),
        ("sync now", ":sync takes nothing more; 'now' is too many"),
        ("goto", ":goto needs a step"),
        ("goto x", "'x' is no step; a step is a whole number from 0 up"),
        ("goto ²", "'²' is no step; a step is a whole number from 0 up"),
        ("goto 813", "step 813 has not been; the newest is 812"),
        ("export pdf", "unknown format 'pdf'; one of: parquet, csv, ndjson, arrow"),
        ("export csv steps", "steps are written: steps A..B, for example steps 100..200 or steps 100.."),
        ("export csv steps 9..3", "steps 9..3: the first is above the last"),
        ("export csv steps x", "'x' is not a range of steps; it is written A..B, A.. or ..B"),
        ("overlay demo-7f3a", "unknown run to overlay 'demo-7f3a'; one of: other-1"),
        ("theme", ":theme needs a theme"),
        ("mark", ":mark needs a text"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(line: str, words: str):
    with pytest.raises(GrammarError) as error:
        grammar.parse(line, KNOWN)
    assert str(error.value) == words


@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("th", ("theme",)),
        (":ru", ("run", "runs")),
        ("fix ", ("processed-logprobs", "prefix-cache-off")),
        ("fix pre", ("prefix-cache-off",)),
        ("fix prefix-cache-off ", ("off", "on", "removed")),
        ("run ", ("other-1",)),
        ("overlay ", ("other-1", "off")),
        ("theme ok", ("okabe-ito",)),
        ("export csv m", ("metrics",)),
        ("export csv steps ", ("0..812",)),
        ("sync ", ()),
        ("nonsense ", ()),
    ],
)
def test_completion_knows_the_model(line: str, candidates: tuple[str, ...]):
    assert grammar.complete(line, len(line), KNOWN).candidates == candidates


def test_the_language_is_importable_without_the_app():
    code = "import sys, console.tui.command.grammar; print({'textual', 'console.tui.app'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_candidate_is_taken():
    assert len(grammar.BY_NAME) == len(COMMANDS), "no name twice"
    for command in COMMANDS:
        for candidate in command.candidates(KNOWN, ()):
            if candidate != "steps":
                assert grammar.parse(f"{command.name} {candidate}", KNOWN) is not None


def test_lists_that_are_written_twice_are_equal():
    assert CLI_THEMES == THEMES
    assert tuple(EXPORTED) == TABLES, "what the command line exports is what the verb does"
    assert CONFIG_WEIGHTS == WEIGHTS


def test_history_is_bounded_private_and_shared(tmp_path: Path):
    path = tmp_path / "state" / "history"
    first, second = History(path), History(path)
    for i in range(2 * KEPT + 20):
        first.add(f"goto {i}")
    second.add("sync")
    second.add("sync")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lines = History(path).lines
    assert lines[-2:] == [f"goto {2 * KEPT + 19}", "sync"]
    assert len(lines) == KEPT
    assert len(path.read_text().splitlines()) <= 2 * KEPT + 1


def test_history_goes_back_and_comes_home(tmp_path: Path):
    history = History(tmp_path / "history")
    history.add("one")
    history.add("two")
    assert [history.older("dra"), history.older("two"), history.older("one")] == ["two", "one", "one"]
    assert [history.newer(), history.newer(), history.newer()] == ["two", "dra", "dra"]


def test_a_history_that_cannot_be_written_is_done_without(tmp_path: Path):
    (tmp_path / "file").write_text("")
    history = History(tmp_path / "file" / "history")
    history.add("sync")
    assert history.lines == ["sync"]


def test_history_lies_in_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert default_path({"XDG_STATE_HOME": str(tmp_path)}) == tmp_path / "driftline" / "history"
    monkeypatch.setattr("os.path.expanduser", lambda path: path.replace("~", "/home/ana"))
    expected = Path("/home/ana/.local/state/driftline/history")
    assert default_path({"XDG_STATE_HOME": "relative"}) == expected
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a number without a name, in a container
    assert default_path({}) is None, "not a folder called ~ where the console was started"
    assert History(default_path({})).lines == []


def test_the_line_is_edited_as_in_a_shell():
    line = Line.at_end("fix prefix on")
    assert line.key("ctrl+w") == Line.at_end("fix prefix ")
    assert line.key("ctrl+u") == Line("", 0)
    assert line.key("home") == Line("fix prefix on", 0)
    assert line.key("left").key("backspace") == Line("fix prefix n", 11)  # type: ignore[union-attr]
    assert Line().key("backspace") == Line()
    assert line.key("f5") is None
    assert "\x1b" not in Line().insert("a\x1b[31mb\nc").text


def test_fuzzy_finds_letters_in_their_order_and_words_first():
    assert match("zi", "zoom in, all charts") is not None
    assert match("iz", "zoom in") is None
    texts = ["pan to older steps", ":stop end the run", "step"]
    best = max(texts, key=lambda text: (match("step", text) or (-99, ()))[0])
    assert best == "step"
    assert match("sync w", ":sync sync weights") is not None


def test_keys_can_be_moved():
    table = {ident(key): key for key in mapped({"live.follow": "F5", "screens.sync": "ctrl+y", "live.log": "z Z"})}
    assert table["live.follow"].keys == ("f5",)
    assert table["live.follow"].shown == "F5"
    assert table["screens.sync"].keys == ("ctrl+y",)
    assert table["live.log"].keys == ("z", "Z")
    assert len(table) == len(KEYS)


def test_two_keys_can_be_swapped():
    table = {ident(key): key for key in mapped({"live.follow": "y", "live.log": "f"})}
    assert (table["live.follow"].shown, table["live.log"].shown) == ("y", "f")


@pytest.mark.parametrize(
    ("name", "key", "words"),
    [
        ("live.nope", "z", "no such entry"),
        ("live.follow", "", "needs a key"),
        ("live.follow", "hyper+x", "'hyper+x' is not a key"),
        ("live.follow", "y", "'y' is live.log already"),
        ("live.follow", "q", "'q' is everywhere.quit already"),
        ("live.follow", "e", "'e' is screens.export already"),
        ("everywhere.quit", "f", "'f' is live.follow already"),
        ("screens.sync", "z", "too easily pressed"),
        ("screens.sync", "!", "too easily pressed"),
        ("live.follow", "ctrl+b", "is the prefix of tmux"),
    ],
)
def test_a_map_that_cannot_be_is_refused(name: str, key: str, words: str):
    with pytest.raises(KeymapError, match="^.*" + words.replace(".", r"\.").replace("+", r"\+")):
        mapped({name: key})


def test_the_table_itself_has_no_key_twice_in_a_place():
    seen: dict[tuple[str, str], str] = {}
    for key in KEYS:
        for one in key.keys:
            assert (key.where, one) not in seen, (ident(key), seen.get((key.where, one)))
            seen[key.where, one] = ident(key)
    for key in KEYS:
        assert not key.acts_on_run or all(len(one) == 1 and one.isupper() for one in key.keys)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("fix", "[ID [VALUE]]  switch a fix"),
        ("fix fp32-lm-head", "off | on, wanted on now; without a value the other one"),
        ("fix prefix-cache-off", "off | on | removed, wanted off now"),
        ("fix fp32-lm-head on", "it is wanted on already"),
        ("fix fp32-lm-head off", "wanted on now; enter asks first"),
        ("fix warp-drive", "[ID [VALUE]]  switch a fix"),
    ],
)
def test_the_end_of_the_line_tells_the_values_of_a_fix(line: str, said: str):
    known = Known(
        fixes={"fp32-lm-head": ("off", "on"), "prefix-cache-off": ("off", "on", "removed")},
        wanted={"fp32-lm-head": "on", "prefix-cache-off": "off"},
    )
    assert grammar.hint(line, known).startswith(said)
