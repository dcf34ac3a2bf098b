"""Steps that are recorded and replayed: on a GPU a step of some thousand small operations takes as long as a CPU needs to launch them.

A step is recorded for each position, since attention sees the positions so far and no more. It reads and writes memory that must not move: keys and
values, the tokens, which positions are real, what steers. A later batch's are written there in place.
"""

import logging
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fade_lens.generation.decoders.base import Hooks, Real, Recordable, State, Tokens
from fade_lens.generation.decoders.blocks import TOLERANCE, OwnBlock
from fade_lens.generation.decoders.compact import CompactDecoder
from fade_lens.subject.hooks import Model
from fade_lens.subject.memory import is_out_of_memory

logger = logging.getLogger(__name__)

Step = Callable[[], State]
Record = Callable[[Step], Step]
"""Records a step, which need not run; what it returns does the same again, without any Python, and gives the same tensor every time."""
KINDS = 8
"""Kinds of batch whose steps are recorded at most."""


class CudaGraphs:
    """Records steps as CUDA graphs. They share their memory, in any order: a step's result is copied before another step runs."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = None
        self._pool: Any = None
        self._graphs = WeakSet[torch.cuda.CUDAGraph]()

    def __call__(self, step: Step) -> Step:
        with torch.cuda.device(self._device):
            return self._recorded(step)

    def _recorded(self, step: Step) -> Step:
        graph = torch.cuda.CUDAGraph()
        if not self._graphs:  # memory of which all graphs are gone may be gone too
            self._pool = torch.cuda.graph_pool_handle()
        self._graphs.add(graph)
        # PyTorch leaves its own stream the current one where a capture fails: the context outside puts this one back.
        with torch.cuda.stream(torch.cuda.current_stream()):
            if (
                self._stream is None
            ):  # libraries prepare themselves at the first step of a stream, which cannot be recorded
                self._stream = torch.cuda.Stream()
                self._stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(self._stream):
                    step()
                torch.cuda.current_stream().wait_stream(self._stream)
            # Other threads may use the GPU meanwhile.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                state = step()

        def replay() -> State:
            graph.replay()
            return state

        return replay


@dataclass
class Recorded:
    """The steps of one kind of batch, and the memory that they read.

    Attributes:
        steps: by the number of positions before; None for one that has run once, and is recorded when it comes again.
        reads: tables that were replaced by longer ones since.
        wrong: whether any replay differed from the step itself; on the device, so that nobody waits for it.
        trusted: whether it is known that none did, of two batches.
    """

    tokens: Int[Tensor, " row"]
    real: Real | None
    tensors: list[Tensor]
    wrong: Bool[Tensor, ""]
    steps: dict[int, Step | None] = field(default_factory=dict[int, Step | None])
    reads: list[Any] = field(default_factory=list[Any])
    trusted: bool = False


class GraphDecoder(CompactDecoder):
    """A `CompactDecoder` whose steps are recorded when they come for the second time, so that a single batch costs no more than without.

    A recorded step is used once its replays have agreed with the steps themselves: when they were recorded, and once more in a later batch.
    Where steps cannot be recorded, or differ, all run as they are, and the log says why.

    Args:
        record: how a step is recorded; None for CUDA graphs.

    Attributes:
        replayed: how many steps were replayed so far, and not run.
    """

    def __init__(
        self, model: Model, hooks: Sequence[str], prompts: Sequence[tuple[int, ...]], record: Record | None = None
    ) -> None:
        self._kinds: dict[Hashable, Recorded] = {}
        self._now: Recorded | None = None
        self._refused = self._told = False
        self.replayed = 0
        super().__init__(model, hooks, prompts)
        self._record = record or CudaGraphs(self.head.device)
        if any(isinstance(block, OwnBlock) for block in self._blocks):
            reason = "a block runs as TransformerLens has it, for it is hooked inside or has no compact form"
            self._refuse(reason, logging.INFO)

    @contextmanager
    def steered(self, steering: Hooks) -> Generator[None]:
        self._steering = steering
        with super().steered(steering):
            yield

    def start(self, tokens: Tokens, real: Real, new_tokens: int) -> State:
        state = super().start(tokens, real, new_tokens)
        self._now = None if self._refused else self._recorded(len(tokens))
        return state

    def step(self, tokens: Int[Tensor, " row"]) -> State:
        now, before = self._now, self._before
        if now is None:
            return super().step(tokens)
        now.tokens.copy_(tokens)
        if before not in now.steps:
            now.steps[before] = None
            return super().step(tokens)
        recorded = now.steps[before]
        if recorded is not None and now.trusted:
            self._before, self.replayed = self._before + 1, self.replayed + 1
            return recorded().clone()
        replay = recorded or self._add(now, before)
        if replay is None:
            return super().step(tokens)
        replayed = replay()  # before the step itself, which writes what is right over its keys and values
        state = super().step(tokens)
        now.wrong |= differ(replayed, state)
        if recorded is not None:  # in another batch: this one may wait
            now.trusted = not bool(now.wrong)
            if not now.trusted:
                self._refuse("a replay differs from the step; please report the model")
        return state

    def _recorded(self, rows: int) -> Recorded | None:
        """The recorded steps of batches such as this one, which has begun; its own tensors are written into theirs."""
        steering, real = self._steering, self._real
        if not isinstance(steering, Recordable) or steering.kind is None:
            if not self._told:
                logger.info(
                    "Steps of generation are not recorded where steering reads activations (modes other than 'add')"
                )
            self._told = True
            return None
        own, hooks = steering.tensors, tuple(name for name, _ in steering.hooks())
        key = rows, None if real is None else real.shape[1], steering.kind, hooks, *((t.shape, t.dtype) for t in own)
        found = self._kinds.pop(key, None)
        if found is None:
            tokens = torch.zeros(rows, dtype=torch.long, device=self.head.device)
            found = Recorded(tokens, real, [*own], torch.zeros_like(tokens[0], dtype=torch.bool))
        else:
            for new, kept in zip(own, found.tensors, strict=True):
                kept.copy_(new)
            if real is not None and found.real is not None:
                found.real.copy_(real)
        self._kinds[key] = found  # the latest stands last
        if len(self._kinds) > KINDS:
            del self._kinds[next(iter(self._kinds))]
        own[:], self._real = found.tensors, found.real
        return found

    def _add(self, now: Recorded, before: int) -> Step | None:
        """The step after so many positions, recorded; None where that fails."""
        try:
            replay = self._record(lambda: self._state(now.tokens, before))
        except RuntimeError as error:
            if is_out_of_memory(error):  # fewer rows may fit
                raise
            self._refuse(f"{type(error).__name__}: {error}".splitlines()[0])
            return None
        now.steps[before], now.trusted = replay, False
        now.reads += self._tables.values()
        return replay

    def _refuse(self, reason: str, level: int = logging.WARNING) -> None:
        """No step is recorded or replayed from now on."""
        logger.log(level, "Steps of generation are not recorded but run one operation after another: %s", reason)
        self._refused, self._now = True, None
        self._kinds.clear()

    def _make_room(self, rows: int, total: int) -> None:
        self._now = None
        self._kinds.clear()  # keys and values move
        super()._make_room(rows, total)


def differ(replayed: State, state: State) -> Bool[Tensor, ""]:
    """Whether two results of a step differ in any row by more than rounding; what is no number is equal to its like."""
    finite = state.isfinite()
    error, norm = (x.where(finite, 0).float().norm(dim=-1) for x in (replayed - state, state))
    return (error > TOLERANCE[state.dtype] * norm).any() | (replayed.isfinite() != finite).any()
