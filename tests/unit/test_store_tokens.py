"""The store of token pairs: against a plain reading of the same frames, within its bound, and not to be broken."""

from __future__ import annotations

import math
import tracemalloc

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.store.filter_grammar import FilterError
from console.store.tokens.filter import FIELDS, TOKENS
from console.store.tokens.frames import decode_lean
from console.store.tokens.ring import BINS, MEMORY_BOUND, OTHER, SIDE, TokenStore, bin_of, bins
from console.store.tokens.survey import By, largest, survey
from driftline.frames import MAX_INT, Tokens, encode, floats, ints
from tests.unit.runs import tokens

Row = tuple[int, int, int, float]


def put(store: TokenStore, *frames: Tokens) -> TokenStore:
    for frame in frames:
        store.apply(store.head + 1, decode_lean(encode(frame)))
    return store


def frame(step: int, seq: list[int], diff: list[float], *, version: int | None = None, **more: object) -> Tokens:
    """Tokens whose rollout logprob is -1 and whose position counts within each sequence."""
    n = len(seq)
    position = [seq[:i].count(own) for i, own in enumerate(seq)]
    sampler = [step if version is None else version] * n
    arrays = [np.asarray(part, "<i4").tobytes() for part in (range(n), seq, position, sampler)]
    rollout = np.full(n, -1.0, "<f4")
    made = Tokens(step, step, 0.0, n, *arrays, rollout.tobytes(), (rollout + np.array(diff, "<f4")).tobytes())
    return msgspec.structs.replace(made, **more)


def rows_of(frames: list[Tokens]) -> list[Row]:
    """Step, sequence, position and difference of every token, without numpy's help."""
    return [
        (f.step, int(s), int(p), float(np.float32(t) - np.float32(r)))
        for f in frames
        for s, p, t, r in zip(ints(f.seq), ints(f.position), floats(f.trainer), floats(f.rollout), strict=True)
    ]


def test_the_worst_are_the_worst() -> None:
    frames = [tokens(step, sequences=5, length=7) for step in range(1, 20)]
    store = put(TokenStore(), *frames)
    found = survey(store, listed=40)
    listed = [store.token(row) for row in found.worst.tolist()]
    wanted = sorted(rows_of(frames), key=lambda row: -abs(row[3]))[:40]
    assert [(t.sequence.step, t.position, t.diff) for t in listed] == [(s, p, d) for s, _, p, d in wanted]
    assert found.matched == found.kept == 19 * 35
    assert found.mean == pytest.approx(np.mean([abs(d) for *_, d in rows_of(frames)]), rel=1e-5)


def test_a_sequence_is_put_together_however_its_tokens_came() -> None:
    sent = tokens(4)  # interleaved, the last sequence without engine and reward
    store = put(TokenStore(), sent)
    by = {store.sequence(n).prompt: store.sequence(n) for n in range(store.sequences.first, store.sequences.end)}
    assert list(by) == list(sent.prompts)
    for place, (prompt, sequence) in enumerate(by.items()):
        mine = [i for i, own in enumerate(ints(sent.seq)) if own == place]
        diff = (floats(sent.trainer) - floats(sent.rollout))[mine]
        assert sequence.count == len(mine)
        assert sequence.mean == pytest.approx(np.abs(diff).mean(), rel=1e-5)
        assert sequence.max == pytest.approx(np.abs(diff).max())
        assert sequence.ratio == pytest.approx(diff.sum(), rel=1e-4, abs=1e-6)
        listed = [store.token(row) for row in range(sequence.first, sequence.first + sequence.count)]
        assert [t.piece for t in listed] == [sent.pieces[i] for i in mine], prompt
        assert [t.position for t in listed] == list(range(len(mine)))
    first, last = by["prompt 0"], by[f"prompt {len(by) - 1}"]
    assert (first.engine, first.reward) == ("engine-0", 0.0)
    assert last.engine == ""
    assert math.isnan(last.reward)


def test_age_is_shown_beside_the_difference_and_changes_nothing_of_it() -> None:
    fresh, stale = (put(TokenStore(), frame(9, [0, 0], [0.1, -0.4], version=v)) for v in (9, 7))
    for store, lag in ((fresh, 0), (stale, 2)):
        worst = store.token(int(survey(store).worst[0]))
        assert (worst.lag, worst.diff) == (lag, pytest.approx(-0.4))
    assert survey(fresh).stale == 0
    assert survey(stale).stale == 2


def test_what_is_no_number_is_the_worst_and_spoils_no_mean() -> None:
    store = put(TokenStore(), frame(1, [0, 0, 0, 1], [0.1, math.nan, math.inf, 0.3]))
    found = survey(store)
    assert {store.token(row).position for row in found.worst[:2].tolist()} == {1, 2}
    assert found.broken == 2
    assert found.mean == pytest.approx(0.2)
    assert found.positions.mean.tolist() == pytest.approx([0.2])
    assert store.sequence(int(found.outliers[0])).count == 3


@pytest.mark.parametrize(("by", "first"), [("mean", 1), ("max", 0), ("sum", 2)])
def test_sequences_stand_out_by_what_is_asked(by: By, first: int) -> None:
    spread = [0.9, -0.1, -0.1, -0.1], [0.5, -0.5, 0.5, -0.5], [0.4, 0.4, 0.4, 0.4]
    store = put(TokenStore(), frame(1, [i for i in range(3) for _ in range(4)], [d for part in spread for d in part]))
    assert int(survey(store, by=by).outliers[0]) == store.sequences.first + first


def test_half_octaves() -> None:
    edges = [0.0, 1e-9, -1e-9, 0.1, -0.1, 1.0, -1.0, 31.9, 1e9, -1e9]
    places = [bin_of(value) for value in edges]
    assert places[:3] == [SIDE] * 3
    assert places[3] - SIDE == SIDE - places[4] > 0
    assert (places[-2], places[-1]) == (BINS - 1, 0)
    ascending = np.sort(np.random.default_rng(0).normal(0, 2, 1000)).astype("<f4")
    assert (np.diff(bins(ascending, np.abs(ascending)).astype(int)) >= 0).all()


# -- bounds


def test_the_oldest_frames_go_and_what_is_kept_stays_true() -> None:
    store = TokenStore(tokens=100, sequences=20)
    frames = [tokens(step, sequences=3, length=5) for step in range(1, 60)]
    for sent in frames:
        put(store, sent)
        assert len(store) <= 100
        assert len(store.sequences) <= 20
    kept = rows_of(frames[-len(store.blocks) :])
    assert len(kept) == len(store) == 90
    listed = [store.token(row) for row in range(store.tokens.first, store.tokens.end)]
    assert sorted((t.sequence.step, t.position, t.diff) for t in listed) == sorted((s, p, d) for s, _, p, d in kept)
    assert store.token(store.tokens.first - 1) is None
    assert store.sequence(store.sequences.first - 1) is None


def test_a_frame_larger_than_the_store_is_cut_and_that_is_counted() -> None:
    store = put(TokenStore(tokens=10, sequences=4), tokens(1, sequences=3, length=20))
    assert (len(store), store.cut) == (10, 50)
    store = put(TokenStore(tokens=100, sequences=4), tokens(1, sequences=9, length=2))
    assert (len(store.sequences), len(store), store.cut) == (4, 8, 10)


def test_frames_that_are_sent_again_replace_what_followed() -> None:
    store = TokenStore()
    for seq in (3, 5, 8):
        store.apply(seq, decode_lean(encode(frame(seq, [0, 0, 1], [0.1, 0.2, 0.3]))))
    store.apply(5, decode_lean(encode(frame(50, [0], [0.7]))))
    assert sorted({store.token(row).sequence.step for row in range(store.tokens.first, store.tokens.end)}) == [3, 50]
    assert store.head == 5
    store.apply(6, None)
    assert (store.damaged, store.head, len(store)) == (1, 6, 4)


def test_a_still_does_not_move() -> None:
    store = put(TokenStore(tokens=60), *(tokens(step) for step in range(4)))
    still = store.frozen_copy()
    first = still.tokens.first
    before = [repr(still.token(row)) for row in range(first, still.tokens.end)]
    put(store, *(tokens(step) for step in range(10, 30)))
    assert [repr(still.token(row)) for row in range(first, still.tokens.end)] == before
    assert not store.holds(first)


def test_a_still_and_its_store_do_not_write_into_one_another() -> None:
    """A still has the arrays of its store: neither what is sent again nor what is moved to the front may show in it."""
    store = put(TokenStore(tokens=600), *(tokens(step) for step in range(4)))
    stills = []
    for turn in range(40):
        still = store.frozen_copy()
        stills.append((still, still.tokens["diff"].copy(), still.tokens["id"].copy()))
        if turn % 3 == 0:
            store.rewind(store.head - 2)
        put(store, *(tokens(100 * turn + more) for more in range(3)))
        if turn == 20:
            own = store.tokens["diff"].copy()
            put(still, tokens(7))
            stills.pop()
            assert np.array_equal(store.tokens["diff"], own)
    for still, diff, ids in stills:
        assert np.array_equal(still.tokens["diff"], diff)
        assert np.array_equal(still.tokens["id"], ids)


@pytest.mark.parametrize("shape", ["noise", "ascending", "descending", "one value", "few large", "periodic"])
def test_the_largest_of_many_are_the_largest(shape: str) -> None:
    n, count = 200_000, 1000
    value = np.random.default_rng(3).normal(size=n).astype(np.float32)
    value = {
        "noise": value,
        "ascending": np.sort(value),
        "descending": np.sort(value)[::-1],
        "one value": np.ones(n, np.float32),
        "few large": np.where(np.arange(n) < 10, np.inf, 0).astype(np.float32),
        "periodic": np.where(np.arange(n) % (n // 4096) == 0, 9.0, value).astype(np.float32),
    }[shape]
    places = largest(value, count)
    assert len(set(places.tolist())) == count
    assert np.array_equal(value[places], np.sort(value)[::-1][:count])


HOSTILE = {
    "prompts": lambda n: {"prompts": tuple("x" * 200 + str(i) for i in range(n))},
    "empty prompts": lambda n: {"prompts": ("",) * (2 * n)},
    "pieces": lambda n: {"pieces": tuple("p" * 90 + str(i) for i in range(n))},
    "engines": lambda n: {"engines": tuple("e" * 300 + str(i) for i in range(n))},
    "plain": lambda _: {},
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.slow
def test_memory_stays_within_the_bound(kind: str) -> None:
    rng = np.random.default_rng(0)
    n, seqs = 24_000, 12_000  # many short sequences cost more than few long ones
    sent = tokens(1, sequences=seqs, length=n // seqs, pieces=False)
    order = rng.permutation(n).astype("<i4")
    sent = msgspec.structs.replace(sent, seq=(order % seqs).astype("<i4").tobytes(), **HOSTILE[kind](n))
    bodies = [encode(sent)]
    store = TokenStore()
    tracemalloc.start()
    try:
        for number in range(20):
            store.apply(number + 1, decode_lean(bodies[0]))
            if number == 19:
                survey(store, TOKENS.parse("text=p1"))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < MEMORY_BOUND
    assert store.nbytes < MEMORY_BOUND
    assert len(store) > 0


def test_engines_beyond_count_share_a_name() -> None:
    store = TokenStore()
    for start in range(0, 3000, 100):
        names = tuple(f"engine-{i}" for i in range(start, start + 100))
        put(store, frame(1, list(range(100)), [0.1] * 100, engines=names))
    assert len(store.engines) <= 1024
    assert store.sequence(store.sequences.end - 1).engine == OTHER
    assert store.sequence(store.sequences.first).engine == "engine-0"


@settings(max_examples=40, deadline=None)
@given(st.data())
@pytest.mark.slow
def test_no_arrays_break_it(data: st.DataObject) -> None:
    store = TokenStore(tokens=40, sequences=7)
    whole = st.integers(-(2**31), 2**31 - 1)
    for number in range(1, data.draw(st.integers(1, 5)) + 1):
        n = data.draw(st.integers(0, 60))
        some = st.lists(whole | st.integers(0, 4), min_size=n, max_size=n)
        blobs = [np.array(data.draw(some), "<i4").tobytes() for _ in range(4)]
        blobs += [np.array(data.draw(some), "<i4").tobytes() for _ in range(2)]  # any bits as floats
        words = data.draw(st.lists(st.text(max_size=4), max_size=n))
        place = st.integers(-1, MAX_INT)
        sent = Tokens(data.draw(place), data.draw(place), 0.0, n, *blobs, ("e",), ("p",), (math.nan,), tuple(words))
        store.apply(number, decode_lean(encode(sent)))
        found = survey(store, TOKENS.parse(data.draw(st.sampled_from(["", "|d|>0.1", "text=a", "prompt=p", "lag>0"]))))
        assert found.matched >= len(found.worst)
        assert found.histogram.sum() == found.matched
        for row in found.worst[:5].tolist():
            token = store.token(row)
            assert repr(store.sequence(token.sequence.number)) == repr(token.sequence)


# -- filters


def matched(store: TokenStore, text: str) -> list[tuple[int, int]]:
    found = survey(store, TOKENS.parse(text))
    listed = [store.token(row) for row in found.worst.tolist()]
    return sorted((t.sequence.step, t.position) for t in listed)


def run() -> TokenStore:
    frames = [
        frame(step, [0, 0, 0, 1, 1], [0.01 * step, 0.2, -0.3, 0.4, -0.5], version=step - step % 2,
              engines=("engine-0", "engine-1"), prompts=("2 + 2", "two"), rewards=(0.0, 1.0),
              pieces=("a", "foo", "x y", "b", "food"))
        for step in (1, 2, 3)
    ]  # fmt: skip
    return put(TokenStore(), *frames)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", 15),
        ("engine=engine-0", 9),
        ("engine!=engine-0", 6),
        ("engine=absent", 0),
        ("step=2", 5),
        ("step>=2 step<3", 5),
        ("version<=0", 5),
        ("v=2", 10),
        ("lag>0", 10),
        ("position<1", 6),
        ("pos=2", 3),
        ("id=4", 3),
        ("id=4 id=3", 0),
        ("|d|>0.35", 6),
        ("d<-0.4", 3),
        ("d > 0.35", 3),
        ("rollout=-1", 15),
        ("reward=1", 6),
        ("text=foo", 6),
        ("text!=foo", 9),
        ('text="x y"', 3),
        ('prompt="2 + 2"', 9),
        ("prompt!=two step=1", 3),
        ("engine=engine-1 |d|>0.45 step=3 text=food", 1),
        ("step=99999999999999", 0),
        ("id<99999999999", 15),
    ],
)
def test_filters(text: str, wanted: int) -> None:
    store = run()
    assert len(matched(store, text)) == survey(store, TOKENS.parse(text)).matched == wanted
    assert survey(store.frozen_copy(), TOKENS.parse(text)).matched == wanted
    sequences = {store.token(row).sequence.number for row in survey(store, TOKENS.parse(text)).worst.tolist()}
    assert set(survey(store, TOKENS.parse(text)).outliers.tolist()) == sequences


def test_a_text_is_looked_for_anew_when_it_changes_and_frames_come() -> None:
    store = run()
    assert survey(store, TOKENS.parse("text=foo")).matched == 6
    assert survey(store, TOKENS.parse("text=b")).matched == 3
    put(store, frame(4, [0, 1], [0.1, 0.1], pieces=("b", "c")))
    assert survey(store, TOKENS.parse("text=b")).matched == 4
    put(store, frame(5, [0, 1], [0.1, 0.1]))
    assert survey(store, TOKENS.parse("text=b")).matched == 4, "what has no text holds none"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("foo", "unknown field 'foo'; one of: engine, step"),
        ("versoin>3", "unknown field 'versoin', did you mean version?; one of:"),
        ("step", "step: a comparison must follow, one of = != < <= > >="),
        ("engine>a", "engine: a comparison must follow, one of = !="),
        ("step>", "step>: a whole number must follow"),
        ("step>1.5", "step: compared with a whole number, not with '1.5'"),
        ("|d|>much", "|d|: compared with a number, not with 'much'"),
        ("d>nan", "d: 'nan' is out of range"),
        ("step=1e99", "step: compared with a whole number"),
        ("|d|<inf", "'inf' is out of range"),
        ('text="open', "quote must end"),
        ('text="a"b', "quote must end, and a blank follow"),
        (">3", "unknown field ''"),
        ("text=", "text=: a text must follow"),
    ],
)
def test_what_is_no_filter_is_reported_in_one_sentence(text: str, wanted: str) -> None:
    said = TOKENS.complaint(text)
    assert wanted in said
    assert "\n" not in said
    with pytest.raises(FilterError):
        TOKENS.parse(text)


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_a_complaint(text: str) -> None:
    said = TOKENS.complaint(text)
    if not said:
        again = " ".join(map(str, TOKENS.parse(text)))
        assert [c.field for c in TOKENS.parse(again)] == [c.field for c in TOKENS.parse(text)]
        assert {c.field for c in TOKENS.parse(text)} <= set(FIELDS)
