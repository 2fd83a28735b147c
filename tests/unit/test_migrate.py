"""`driftline migrate` without engines: the page and its verdict, and what it says before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from console.cli.main import main
from console.environments import defaults, page
from console.errors import CommandError
from driftline import migration
from driftline.environments import RECORD, VARIABLE, Environment
from driftline.migration import Answer, Difference, Row, Side
from tests.environment import WITHOUT_ENGINE

FIXES = {"processed-logprobs": ("off", "logprobs_mode=raw_logprobs"), "prefix-cache-off": ("off", "requests | read")}


def side(vllm: str, **fixes: tuple[str, str]) -> Side:
    return Side(f"vllm-{vllm}", "/python", vllm, "cpu", {**FIXES, **{k.replace("_", "-"): v for k, v in fixes.items()}})


def row(mean: float | None, fix: str = "", tokens: int = 500) -> Row:
    found = None if mean is None else Difference(mean, mean * 6, tokens)
    return Row(fix or "as they come", fix, ({}, {}), found, found, found, found)


def test_two_that_agree_may_both_be_off() -> None:
    close, far = Difference(2e-6, 1e-5, 500), Difference(0.36, 2.0, 500)
    one = answer(Row("as they come", "", ({}, {}), close, close, far, close), row(2e-6, "processed-logprobs"))
    assert page.exit_code(one) == 0
    assert page.verdict(one).endswith(
        "0.8.5.post2 is 0.36 nats off what torch computes; processed-logprobs on ends that."
    )
    one = answer(Row("as they come", "", ({}, {}), close, close, far, far))
    assert page.verdict(one).endswith("0.18.1 is 0.36 nats off what torch computes, and no fix ends that.")


def answer(*rows: Row, dtype: str = "float32") -> Answer:
    both = (side("0.8.5.post2", processed_logprobs=("on", "V0: processed by itself")), side("0.18.1"))
    return Answer(both, list(rows), dtype, "", 16, 4, 0.7, 0.05, 12, 61.0)


THREE = (row(0.35), row(0.2, "processed-logprobs"), row(2e-6, "prefix-cache-off"))


def test_the_first_layer_that_brings_them_together_is_the_verdict() -> None:
    one = answer(*THREE)
    assert page.home(one) == 2
    assert page.exit_code(one) == 0
    assert page.verdict(one) == (
        "vLLM 0.8.5.post2 and 0.18.1 part as they come: mean |Δ| 0.35 nats. "
        "With processed-logprobs and prefix-cache-off on they agree: 2e-06 nats. As they come, 0.8.5.post2 is 0.35 and "
        "0.18.1 is 0.35 nats off what torch computes; processed-logprobs and prefix-cache-off on ends that."
    )
    assert page.verdict(answer(row(2e-6))).endswith(
        "agree as they come: mean |Δ| 2e-06 nats. Both are what torch computes."
    )
    assert page.home(answer(row(0.02), dtype="bfloat16")) == 0
    assert page.home(answer(row(0.04), dtype="bfloat16")) is None


def test_where_no_fix_helps_it_is_said_and_the_exit_code_is_that_of_no_parity() -> None:
    one = answer(row(0.35), row(0.2, "processed-logprobs"))
    assert page.exit_code(one) == 5
    assert "No fix brings them together: 0.2 nats are left with all of them, 0.0001 would do." in page.verdict(one)


@pytest.mark.parametrize("few", [row(None), row(1e-6, tokens=49)])
def test_too_little_to_say_is_neither(few: Row) -> None:
    one = answer(row(0.3), few)
    assert page.exit_code(one) == 6
    assert page.verdict(one).startswith("Too little was compared to say: ")


def test_the_page_holds_every_number_and_no_stray_column() -> None:
    defaults = ({"block_size": "16", "dtype": "'auto'", "old": "1"}, {"block_size": "None", "dtype": "'auto'"})
    text = page.markdown(answer(*THREE), defaults)
    assert text.startswith("# Migration from vLLM 0.8.5.post2 to 0.18.1\n")
    assert "| prefix-cache-off | prefix-cache-off | 2e-06, 1.2e-05 (500) |" in text
    assert "| block_size | `16` | `None` |" in text
    assert "dtype |" not in text
    assert "1 settings are 0.8.5.post2's alone, 0 0.18.1's" in text
    assert "| processed-logprobs | on: V0: processed by itself | off: logprobs_mode=raw_logprobs |" in text
    assert "requests / read" in text
    assert "12 tokens were sampled and not scored" in " ".join(text.split())
    widths = {block.split("\n")[1].count("|") == line.count("|") for block in text.split("\n\n") for line in
              block.split("\n") if block.startswith("| ")}  # fmt: skip
    assert widths == {True}


def test_an_answer_survives_the_way_between_the_processes() -> None:
    one = answer(*THREE)
    assert msgspec.json.decode(msgspec.json.encode(one), type=Answer) == one
    order = migration.Order(("", "vllm-0.18.1"), "/tmp/x", prompts=[[1, 2]])
    assert msgspec.json.decode(msgspec.json.encode(order), type=migration.Order) == order


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["migrate", *words])
    return code, capsys.readouterr().err


def made(root: Path, name: str, python: str) -> None:
    """An environment whose Python is a script that says what it is given."""
    folder = root / name / "bin"
    folder.mkdir(parents=True)
    (root / name / RECORD).write_text(json.dumps({"name": name, "vllm": "1"}))
    (folder / "python").write_text(f"#!/bin/sh\n{python}\n")
    (folder / "python").chmod(0o755)


def test_what_is_missing_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    code, err = said(capsys, "0.7.3", "this")
    assert (code, err.count("\n")) == (2, 1)
    assert "no environment is called '0.7.3'; there are vllm-0.8.5.post2, " in err
    code, err = said(capsys, "0.18.1", "this")
    assert code == 2
    assert "there is no environment vllm-0.18.1" in err
    assert "make it: driftline env add vllm-0.18.1" in err
    (tmp_path / "vllm-0.18.1").mkdir()
    assert "is half made" in said(capsys, "0.18.1", "this")[1]
    found = '{"python": "3.11.7", "ray": "2.9.9", "vllm": "0.8.5.post2", "msgspec": "1", "zmq": "1"}'
    made(tmp_path, "vllm-0.8.5.post2", f"echo 'driftline:{found}'")
    code, err = said(capsys, "0.8.5", "this")
    assert code == 2
    assert "has Ray 2.9.9, and this one is " in err or "has Python 3.11.7" in err
    code, err = said(capsys, "/bin/false", "this")
    assert (code, err) == (2, "driftline: /bin/false is no Python: /bin/false gives no answer\n")
    assert not list(tmp_path.glob("driftline-migrate-*"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1, 2]\nwords\n", "line 2: a list of token ids is wanted, such as [11, 12]"),
        ("[1, -2]\n", "line 1: a prompt has at least one token id, from 0 up"),
        ("[]\n", "line 1: a prompt has at least one token id"),
        ("\n\n", "holds no prompt"),
    ],
)
def test_prompts_that_are_none_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    from console.cli.verbs import migrate

    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    with pytest.raises(CommandError, match=r"line|no prompt") as refused:
        migrate._prompts(path)
    assert sentence in str(refused.value)
    assert refused.value.exit_code == 2


def test_the_defaults_of_a_vllm_are_asked_of_its_own_python(tmp_path: Path) -> None:
    python = tmp_path / "python"
    found = '{"defaults": {"block_size": "None"}, "architectures": ["Qwen2ForCausalLM"]}'
    python.write_text(f"#!/bin/sh\necho a warning\necho 'driftline:{found}'\n")
    python.chmod(0o755)
    one = Environment("x", python)
    declared = defaults.declared(one)
    assert declared.defaults == {"block_size": "None"}
    for text, sentence in (
        ('{"architectures": ["Qwen2ForCausalLM"]}', ""),
        ("{}", ""),
        ('{"architectures": ["NewForCausalLM"]}', "the vLLM of x has no NewForCausalLM, which this model is"),
        ("[]", "holds no config.json that can be read"),
        ("words", "holds no config.json that can be read"),
    ):
        (tmp_path / "config.json").write_text(text)
        said = defaults.cannot_load(one, declared, tmp_path)
        assert sentence in said
        assert bool(said) is bool(sentence)
    assert "holds no config.json" in defaults.cannot_load(one, declared, tmp_path / "none")
    python.write_text("#!/bin/sh\necho 'ImportError: no _C' >&2\nexit 1\n")
    with pytest.raises(CommandError, match="x: its vLLM does not import: ImportError: no _C"):
        defaults.declared(one)


@pytest.mark.skipif(WITHOUT_ENGINE, reason="the process that takes the order imports torch first")
def test_an_order_that_cannot_be_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trainer import migration as trainer_migration

    bad = tmp_path / "order.json"
    bad.write_text('{"environments": ["a"]}')
    for words, reason in (
        ([], "usage: "),
        ([str(bad)], "Expected `array` of length 2"),
        ([str(tmp_path / "none")], "[Errno 2] "),
    ):
        assert trainer_migration.main(words) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"migration: no order: {reason}")
        assert said.count("\n") == 1
