"""Recorded steps, on a stand-in of CUDA graphs that runs anywhere, against the same steps run one operation after another."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch

from fade_lens.generation.decoders.blocks import CompactBlock
from fade_lens.generation.decoders.compact import CompactDecoder
from fade_lens.generation.decoders.graphs import GraphDecoder
from fade_lens.generation.decoders.hooked import HookedDecoder
from fade_lens.generation.next_token import Sampler
from fade_lens.generation.patchscopes import Patch, Question
from fade_lens.generation.steering import Request, Steering, continue_batch, generate, uniforms
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import textless_tokens
from tests.architectures import ARCHITECTURES, VOCABULARY, hooked, sae_at
from tests.tape import NoWaits, Tape

NEW, HOOK, REFERENCE = 6, "blocks.1.hook_resid_post", torch.tensor([2.0, 3.0, 4.0])
FAMILIAR = [name for name in ARCHITECTURES if name != "alibi"]


class Parts:
    """A model with features, a decoder of recorded steps and one that runs as it is."""

    def __init__(self, architecture: str, record: Any = Tape.record, hook: str = HOOK) -> None:
        Tape.recorded = Tape.replayed = 0
        self.model = hooked(architecture)
        self.features = features_of(self.model, sae_at(hook), [7, 2, 11])
        prompts = [(2, 40, 7), tuple(range(2, 16))]
        with torch.no_grad():
            self.graphs = GraphDecoder(self.model, [hook], prompts, record)
            self.plain = CompactDecoder(self.model, [hook], prompts)
            self.loop = HookedDecoder(self.model, whole=True)

    def same(self, requests: Sequence[Request], loop: bool = False, **options: Any) -> None:
        """That the decoders write the same."""
        found, expected = (
            generate(self.model, self.features, requests, REFERENCE, decoder=decoder, **{"new_tokens": NEW} | options)
            for decoder in (self.graphs, self.loop if loop else self.plain)
        )
        assert found.tolist() == expected.tolist()


def batch(seed: int, rows: int = 5, lengths: Sequence[int] = (4,), unsteered: int = 4) -> list[Request]:
    """Requests of one shape that differ in all else: which rows are padded, too."""
    rng = np.random.default_rng(seed)
    each = [min(lengths), max(lengths), *rng.choice(lengths, rows - 2)]
    prompts = [(2, *map(int, rng.integers(3, VOCABULARY, length - 1))) for length in each]
    chosen = [None if i == unsteered else int(rng.integers(3)) for i in range(rows)]
    factors = rng.choice([1.5, -2.0, 4.0], rows)
    return [Request(prompts[i], chosen[i], float(factors[i]), stream=100 * seed + i) for i in range(rows)]


@pytest.mark.parametrize("architecture", FAMILIAR)
def test_replayed_steps_write_what_the_plain_loop_writes(architecture: str) -> None:
    parts = Parts(architecture)
    for seed in range(8):  # every other batch is padded
        lengths = (4,) if seed % 2 else (4, 9, 6)
        parts.same(batch(seed, lengths=lengths), loop=seed > 4, temperature=0.8 * (seed % 3 == 0))
    # The first batch runs as it is, the second is recorded and checked, the third checks once more, at its first step.
    assert (Tape.recorded, Tape.replayed) == (2 * (NEW - 1), 6 * (NEW - 1))


def test_batches_of_other_shapes_come_between() -> None:
    parts = Parts("gemma2")
    for rows, lengths in ((5, (9,)), (5, (9,)), (3, (9,)), (5, (9,)), (3, (9,)), (5, (4, 9)), (3, (9,)), (5, (4, 9))):
        parts.same(batch(rows + len(lengths) + Tape.replayed, rows, lengths))
    # Keys and values of fewer rows lie in the same memory: nothing is recorded again.
    assert Tape.recorded == 3 * (NEW - 1)
    parts.same(batch(3, 7, (20,)))  # which moves
    parts.same(batch(4, 5, (9,)))
    assert Tape.recorded == 3 * (NEW - 1)
    for seed in range(3):
        parts.same(batch(seed, 5, (9,)))
    assert Tape.recorded == 4 * (NEW - 1)


def test_more_rows_and_longer_texts_in_turn_move_nothing_twice() -> None:
    parts = Parts("gemma2")
    for turn in range(5):
        parts.same(batch(turn, 8, (4,)))
        parts.same(batch(turn, 3, (20,)))
    assert Tape.recorded == 2 * (NEW - 1)


def test_whole_texts_may_be_read_between_batches() -> None:
    parts = Parts("llama")
    for seed in range(4):
        parts.same(batch(seed))
        with torch.no_grad():
            tokens = torch.randint(
                3, VOCABULARY, (9, 20 if seed < 2 else 60), generator=torch.Generator().manual_seed(seed)
            )
            torch.testing.assert_close(parts.graphs.states(tokens), parts.plain.states(tokens), rtol=0, atol=0)
    assert Tape.replayed > 2 * (NEW - 1)


def test_a_text_does_not_depend_on_its_neighbours() -> None:
    parts, requests = Parts("qwen-folded"), batch(1, rows=8)
    alone = generate(parts.model, parts.features, requests, REFERENCE, new_tokens=NEW, batch_size=1)
    for order in ([0, 1, 2, 3], [4, 5, 6, 7], [7, 0, 5, 2], [3, 3, 1, 6], [6, 4, 0, 1]):
        some = [requests[i] for i in order]
        found = generate(parts.model, parts.features, some, REFERENCE, new_tokens=NEW, decoder=parts.graphs)
        assert found.tolist() == alone[order].tolist()
    assert Tape.replayed == 4 * (NEW - 1)


def test_where_memory_runs_out_a_smaller_batch_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, step, left = Parts("gpt2"), GraphDecoder.step, [3 * (NEW - 1) + 2]

    def scarce(self: Any, tokens: torch.Tensor) -> torch.Tensor:
        left[0] -= 1
        if left[0] == 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, tokens)

    rooms, begin = list[int](), CompactBlock.begin
    monkeypatch.setattr(CompactBlock, "begin", lambda *some: (rooms.append(some[-1]), begin(*some))[1])
    monkeypatch.setattr(GraphDecoder, "step", scarce)
    parts.same([request for seed in range(6) for request in batch(seed, 8, unsteered=0)], batch_size=8)
    assert left[0] < 0 and Tape.recorded == 2 * (NEW - 1)  # once with 8 rows, once with 4
    assert list(dict.fromkeys(rooms)) == [8, 0, 4], "the larger batch's memory is given back first"


def test_where_memory_runs_out_while_a_step_is_recorded_fewer_rows_are() -> None:
    tried = list[int]()

    def scarce(step: Callable[[], Any]) -> Any:
        tried.append(len(step()))
        if tried[-1] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Tape.record(step)

    parts = Parts("gpt2", scarce)
    parts.same([request for seed in range(6) for request in batch(seed, 8, unsteered=0)], batch_size=8)
    assert tried == [8] + [4] * (NEW - 1) and Tape.replayed > NEW


def test_where_recording_fails_all_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def fails(step: Callable[[], Any]) -> Any:
        raise RuntimeError("operation not permitted\nwhen a stream is captured")

    parts = Parts("gpt2", fails)
    for seed in range(3):
        parts.same(batch(seed))
    (message,) = [record.getMessage() for record in caplog.records]
    assert "operation not permitted" in message and "when a stream" not in message


@pytest.mark.parametrize("right", [0, NEW - 2, NEW - 1])
def test_a_replay_that_differs_is_never_used(caplog: pytest.LogCaptureFixture, right: int) -> None:
    """From the first replay on, from the last step that is recorded, or in the batch after."""

    def wrong(step: Callable[[], Any]) -> Any:
        replay = Tape.record(step)
        return lambda: replay() * (1 if Tape.replayed < right else torch.tensor([1, 1, 1.1, 1, 1])[:, None])

    parts = Parts("gpt2", wrong)
    for seed in range(4):
        parts.same(batch(seed))
    assert "differs" in caplog.text and Tape.replayed == NEW


def test_what_steers_and_reads_is_not_recorded(caplog: pytest.LogCaptureFixture) -> None:
    parts = Parts("gpt2")
    with caplog.at_level(logging.INFO):
        for mode in ("clamp", "scale", "ablate", "add", "add", "clamp"):
            parts.same(batch(3), mode=mode)
    assert Tape.recorded == NEW - 1 and caplog.text.count("reads activations") == 1


def test_a_block_that_is_hooked_inside_is_not_recorded(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        parts = Parts("gpt2", hook="blocks.1.hook_mlp_out")
    assert "hooked inside" in caplog.text
    for seed in range(3):
        parts.same(batch(seed))
    assert not Tape.recorded


def test_directions_put_in_for_a_word_are_recorded_too() -> None:
    model, about = hooked("gpt2"), Question((2, 40, 7, 9), (2,), 1, 1.0)
    names = [name for name, _ in Patch(model, about, None).hooks()]
    Tape.recorded = Tape.replayed = 0
    with torch.no_grad():
        decoders = [make(model, names, [about.tokens]) for make in (graph_decoder, CompactDecoder)]
        requests = [Request(about.tokens, None, 0.0, 0)] * 3
        for seed in range(4):
            rows = torch.randn(3, 32, generator=torch.Generator().manual_seed(seed))
            found = []
            for decoder in decoders:
                never = textless_tokens(model, decoder.head.d_vocab)
                sampler = Sampler(decoder.head, uniforms(requests, NEW), never, 0.0, None)
                found.append(continue_batch(decoder, Patch(model, about, 5 * rows), requests, sampler, NEW).tolist())
            assert found[0] == found[1]
    assert Tape.replayed == 3 * (NEW - 1)


def graph_decoder(*options: Any) -> GraphDecoder:
    return GraphDecoder(*options, record=Tape.record)


class Watched(Sampler):
    """A sampler from whose first choice on, or a later one, nothing may wait for the device until its last."""

    def watch(self, first: int) -> "Watched":
        self.first, self.watched = first, ExitStack()
        return self

    def choose(self, state: torch.Tensor, step: int) -> torch.Tensor:
        if step == self.first:
            self.watched.enter_context(NoWaits())
        found = super().choose(state, step)
        if step == NEW - 1:
            self.watched.close()
        return found


@pytest.mark.parametrize(
    ("architecture", "sampling", "lengths"),
    [("gpt2", (0.7, None), (4, 9)), ("gemma2", (0.0, None), (4, 9)), ("llama", (1.2, 5), (4,))],
)
def test_no_step_waits_for_the_device(architecture: str, sampling: Any, lengths: Sequence[int]) -> None:
    parts = Parts(architecture)
    for seed in range(4):
        requests = batch(seed, lengths=lengths)
        for decoder in (parts.plain, parts.graphs):
            steering = Steering(parts.model, parts.features, requests, REFERENCE, "add")
            sampler = Watched(decoder.head, uniforms(requests, NEW), torch.tensor([0, 1]), *sampling, waits=False)
            with torch.no_grad():  # the third batch's first step waits, to compare
                continue_batch(decoder, steering, requests, sampler.watch(int(seed == 2)), NEW)
    assert Tape.replayed == 3 * (NEW - 1)


def test_the_check_sees_what_waits() -> None:
    x = torch.arange(3)
    for waits in (lambda: x.nonzero(), lambda: x[0].item(), lambda: bool(x[0]), lambda: x.unique(), lambda: x[x > 1]):
        with NoWaits(), pytest.raises(AssertionError, match="waits for the device"):
            waits()
