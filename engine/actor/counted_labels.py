"""Labels of tokens for a V1 whose outputs have none (up to 0.28): where each sequence stood when the label changed.

Exact as long as the engine stands, and its last outputs are through, whenever it is stamped.
"""

from __future__ import annotations

from typing import Any

from engine.actor.host import Span

_Key = tuple[str, int]
"""A sequence: vLLM's outer request id, and which of the request's samples."""


class CountedLabels:
    """`processor` is `AsyncLLM.output_processor`, which every sequence comes to before its core gets it."""

    def __init__(self, processor: Any) -> None:
        self.label = ""
        self._processor = processor
        self._marks: dict[_Key, list[tuple[int, str]]] = {}
        add_request = processor.add_request

        def added(request: Any, *args: Any, **kwargs: Any) -> None:
            add_request(request, *args, **kwargs)
            state = processor.request_states[request.request_id]
            self._marks[state.external_req_id, state.request_index] = [(0, self.label)]

        processor.add_request = added

    def stamp(self, label: str) -> None:
        """Tokens that come from now on carry this label."""
        self.label = label
        for state in self._processor.request_states.values():
            marks = self._marks.get((state.external_req_id, state.request_index))
            if marks is not None:  # else its request has failed, and is on its way out
                marks.append((state.detokenizer.num_output_tokens() if state.detokenizer is not None else 0, label))

    def spans(self, request: str, index: int, length: int) -> list[Span]:
        """The labelled stretches of sample `index` of a request, which has so many tokens. Asked for once."""
        marks = self._marks.pop((request, index))
        ends = [start for start, _ in marks[1:]] + [length]
        return [Span(label, start, end) for (start, label), end in zip(marks, ends, strict=True) if end > start]

    def forget(self, request: str, samples: int) -> None:
        """Nothing more comes of a request."""
        for index in range(samples):
            self._marks.pop((request, index), None)
