"""The configuration file: what it accepts, and the sentence it answers with."""

from pathlib import Path

import pytest

from console.aligning.plan import REFERENCE_FIXES
from driftline import config as cfg


def test_an_empty_file_is_the_default_run():
    assert cfg.parse("", "x.toml") == cfg.Config()


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.toml")), ids=lambda p: p.name)
def test_every_config_of_the_repository_is_valid(path: Path):
    cfg.load(path)


def test_the_repository_has_configs():
    assert {"demo.toml", "reference.toml"} <= {p.name for p in Path("configs").glob("*.toml")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[run]\nsteps = 0\n", ["bad.toml", "run.steps", ">= 1"]),
        ("[run]\nsteps = 'many'\n", ["bad.toml", "run.steps", "`int`"]),
        ("[run]\nstep = 3\n", ["bad.toml", "run.step'", "allowed: name, steps, seed"]),
        ("[runs]\n", ["bad.toml", "'runs'", "allowed: run, model"]),
        ("[trainer]\nobjective = 'dpo'\n", ["bad.toml", "trainer.objective", "'dpo'"]),
        ("[run]\nname = '../x'\n", ["bad.toml", "run.name"]),
        ("[fixes]\nfp64-head = 'on'\n", ["bad.toml", "fp64-head", "fp32-lm-head"]),
        ("[fixes]\nfp32-lm-head = 'maybe'\n", ["bad.toml", "fp32-lm-head", "'maybe'", "off, on"]),
        ("[model]\nheads = 3\n", ["bad.toml", "model.hidden", "model.heads"]),
        ("[engine]\nmax_model_len = 8\n", ["bad.toml", "engine.max_model_len", "8"]),
        ("run = 3\n", ["bad.toml", "run", "expected `object`"]),
        ("[run\n", ["bad.toml", "not TOML", "line 1"]),
        ("[sampling]\ntemperature = nan\n", ["bad.toml", "sampling.temperature"]),
        ("[sampling]\ntemperature = 0.0\n", ["bad.toml", "sampling.temperature", "> 0"]),
        ("[sampling]\ntemperature = 0.009\n", ["bad.toml", "sampling.temperature", "0.009", "0.01", "vLLM"]),
        ("[trainer]\nlr = inf\n", ["bad.toml", "trainer.lr", "inf", "finite"]),
        ("[engine.args]\nswap_space = -inf\n", ["bad.toml", "engine.args.swap_space", "-inf", "finite"]),
        ("[run]\nseed = 9223372036854775808\n", ["bad.toml", "run.seed", "64 bits"]),
        ("[model]\nhidden = 100\n", ["bad.toml", "model.hidden", "model.heads = 4", "25", "even"]),
        (
            "[[engine.each]]\nfoo = 2\n",
            ["bad.toml", "'engine.each[0].foo'", "allowed: count, environment, dtype, fixes"],
        ),
        ("[[engine.each]]\n[[engine.each]]\nblock_size = 0\n", ["bad.toml", "engine.each[1].block_size", ">= 1"]),
        ("[[engine.each]]\nkv_cache_gb = inf\n", ["bad.toml", "engine.each[0].kv_cache_gb", "finite"]),
        ("[[engine.each]]\nfixes = {x = 'on'}\n", ["bad.toml", "engine.each[0].fixes", "unknown fix 'x'"]),
        ("[engine]\ncount = 2\n[[engine.each]]\n", ["bad.toml", "engine.count", "counts of their own"]),
        ("[[engine]]\nmax_lenght = 2\n", ["bad.toml", "'engine[0].max_lenght'", "allowed: count, environment"]),
        (
            "[[engine]]\nmax_model_len = 64\n[[engine]]\nmax_model_len = 65\n",
            ["bad.toml", "engine[1].max_model_len", "65 here and 64", "whole pool"],
        ),
        ("[shadow]\nshare = 1.5\n", ["bad.toml", "shadow.share", "<= 1.0"]),
        ("[shadow]\nfrom = ['engine-1']\n", ["bad.toml", "shadow.from", "'engine-1'", "allowed: engine-0"]),
        ("[shadow]\nshare = 0.5\n", ["bad.toml", "shadow.share", "another one"]),
        ("[shadow]\nsampled = []\n", ["bad.toml", "'shadow.sampled'", "allowed: share, from, on"]),
        (
            "[rollout]\nmax_lag = 1\nstale = 'drop'\n[sync]\nevery = 3\n",
            ["bad.toml", "rollout.max_lag", "sync.every = 3", "at least 2", "not 1"],
        ),
    ],
)
def test_bad_input_gets_file_key_and_what_is_allowed(text: str, words: list[str]):
    with pytest.raises(cfg.ConfigError) as error:
        cfg.parse(text, "bad.toml")
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "text",
    [
        "[sampling]\ntemperature = 0.01\nmax_tokens = 1\n",
        "[rollout]\nsamples = 2\nahead = 0\nmax_lag = 0\nstale = 'drop'\n[task]\nprefix = 0\n",
        "[rollout]\nmax_lag = 2\nstale = 'drop'\n[sync]\nevery = 3\n",
        "[rollout]\nmax_lag = 0\nstale = 'keep'\n[sync]\nevery = 3\n",
        "[rollout]\nmax_lag = -1\nstale = 'drop'\n[sync]\nevery = 3\n",
        "[rollout]\nmax_lag = 0\nstale = 'drop'\n[sync]\nevery = 0\n",
        "[model]\npath = 'somewhere'\nhidden = 100\n",
        "[run]\nseed = 9223372036854775807\n",
    ],
)
def test_what_lies_on_the_border_is_allowed(text: str):
    cfg.parse(text, "good.toml")


def test_engines_that_are_not_alike() -> None:
    text = """
    [engine]
    max_model_len = 128
    block_size = 64
    [[engine.each]]
    environment = "vllm-0.8.5"
    block_size = 16
    fixes = { prefix-cache-off = "removed" }
    [[engine.each]]
    count = 2
    dtype = "bfloat16"
    """
    config = cfg.parse(text, "x.toml").engine
    assert config.count == 3
    each = cfg.engine_configs(config)
    assert [(one.environment, one.block_size, one.dtype) for one in each] == [
        ("vllm-0.8.5", 16, "model"), ("", 64, "bfloat16"), ("", 64, "bfloat16"),
    ]  # fmt: skip
    assert {one.max_model_len for one in each} == {128}
    assert cfg.engine_fixes(config) == [{"prefix-cache-off": "removed"}, {}, {}]
    alike = cfg.EngineConfig(count=2)
    assert cfg.engine_configs(alike) == [alike, alike]
    assert cfg.engine_fixes(alike) == [{}, {}]


def test_tables_of_engines_are_the_same_written_without_a_common_part() -> None:
    text = "[[engine]]\nenvironment = 'vllm-0.18.1'\ntransport = 'shm'\n[[engine]]\ncount = 2\nmax_num_seqs = 8\n"
    common = """
    [engine]
    transport = "shm"
    [[engine.each]]
    environment = "vllm-0.18.1"
    [[engine.each]]
    count = 2
    max_num_seqs = 8
    """
    assert cfg.parse(text, "x.toml") == cfg.parse(common, "x.toml")


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(cfg.ConfigError, match=r"none\.toml: cannot be read: No such file"):
        cfg.load(tmp_path / "none.toml")


def test_a_file_that_is_not_text(tmp_path: Path):
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(cfg.ConfigError, match="not UTF-8"):
        cfg.load(path)


def test_the_reference_set_is_what_the_reference_configuration_has_on() -> None:
    on = {fix: value for fix, value in cfg.load(Path("configs/reference.toml")).fixes.items() if value == "on"}
    assert dict(REFERENCE_FIXES) == on
