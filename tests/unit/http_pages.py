"""A small HTTP server whose pages a test sets: it answers as a vLLM server would, and there is no engine behind it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Answer = Callable[[BaseHTTPRequestHandler], None]

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m, \\"x\\" {}"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:generation_tokens_total{engine="0",model_name="m"} %(tokens)s
vllm:prefix_cache_queries_total{engine="0",model_name="m"} %(queries)s
vllm:prefix_cache_hits_total{engine="0",model_name="m"} %(hits)s
vllm:num_preemptions_total{engine="0",model_name="m"} 1.0
python_info{version="3"} 1.0
vllm:broken{ nonsense
vllm:nan NaN
"""

CONFIG = {
    "vllm_config": {
        "model_config": {"model": "tiny", "dtype": "torch.bfloat16", "logprobs_mode": "raw_logprobs"},
        "cache_config": {"enable_prefix_caching": True},
        "scheduler_config": {"async_scheduling": True},
        "device_config": {"device": "cpu"},
    }
}


class PageServer:
    """Pages by method and path (`GET /metrics`), each a body of text or JSON, or what writes an answer itself."""

    def __init__(self, pages: dict[str, Any], port: int = 0) -> None:
        self.pages = pages
        self.asked: list[str] = []
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                served._answer(self)

            do_POST = do_GET  # noqa: N815  as above

            def log_message(self, *args: object) -> None:
                """Tests have no use for it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        what = f"{request.command} {request.path.partition('?')[0]}"
        self.asked.append(f"{request.command} {request.path}")
        page = self.pages.get(what)
        if callable(page) and getattr(page, "raw", False):
            page(request)
            return
        page = page() if callable(page) else page
        body = page.encode() if isinstance(page, str) else json.dumps(page).encode()
        request.send_response(200 if what in self.pages else 404)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def raw(answer: Answer) -> Answer:
    """A page that writes its whole answer itself."""
    answer.raw = True  # type: ignore[attr-defined]  # a mark on the function
    return answer


def sends(data: bytes) -> Answer:
    """A page of exactly these bytes, headers and all; the connection ends with them."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(data)
        request.close_connection = True

    return raw(answer)


def endless(first: bytes, drop: bytes, every: float) -> Answer:
    """A page that goes on, a drop at a time, until its reader leaves."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        try:
            request.wfile.write(first)
            while True:
                request.wfile.write(drop)
                time.sleep(every)
        except OSError:
            return

    return raw(answer)


class Vllm(PageServer):
    """The pages of a vLLM server in dev mode, with counters and a pause."""

    def __init__(self, port: int = 0, *, dev: bool = True) -> None:
        self.paused, self.counts = False, {"tokens": 100.0, "queries": 10.0, "hits": 5.0}
        pages: dict[str, Any] = {"GET /version": {"version": "0.32.0"}, "GET /metrics": lambda: METRICS % self.counts}
        if dev:
            pages |= {
                "GET /server_info": CONFIG,
                "GET /is_paused": lambda: {"is_paused": self.paused},
                "POST /pause": lambda: self._set(True),
                "POST /resume": lambda: self._set(False),
                "POST /reset_prefix_cache": {"success": True},
            }
        super().__init__(pages, port)

    def _set(self, paused: bool) -> dict[str, str]:
        self.paused = paused
        return {"status": "paused" if paused else "resumed"}
