"""Faithfulness: does steering the feature make the model write the concept?"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from fade_lens.activations import Progress
from fade_lens.descriptions import Description, read_descriptions
from fade_lens.errors import InputError
from fade_lens.evaluators.ratings import rating_values
from fade_lens.evidence import Continuation, FaithfulnessEvidence
from fade_lens.judge import Judge, Rating
from fade_lens.metrics import Metric, faithfulness
from fade_lens.settings import Settings, rng, stream
from fade_lens.steering import Request, generate
from fade_lens.subject import Subject

BASELINE = -1
"""The "feature" under which the untouched model's continuations are kept: they serve every feature of a run."""

Texts = tuple[str, ...]


@runtime_checkable
class ContinuationStore(Protocol):
    """Where continuations are kept between runs (a `RunStore`)."""

    def continuations(self, index: int, factor: float) -> Texts | None: ...

    def keep_continuations(self, index: int, factor: float, texts: Sequence[str]) -> None: ...


@dataclass
class MemoryContinuations:
    """Continuations kept for as long as the evaluator lives."""

    kept: dict[tuple[int, float], Texts] = field(default_factory=dict[tuple[int, float], Texts])

    def continuations(self, index: int, factor: float) -> Texts | None:
        return self.kept.get((index, factor))

    def keep_continuations(self, index: int, factor: float, texts: Sequence[str]) -> None:
        self.kept[index, factor] = tuple(texts)


@dataclass(frozen=True)
class Asked:
    """Continuations sent to the judge for one description: texts by factor, and the answer for all of them in that order."""

    texts: Mapping[float, Texts]
    answer: Future[list[Rating]]


class FaithfulnessEvaluator:
    """The model continues natural beginnings, untouched and steered at several strengths; the judge rates what it wrote."""

    def __init__(
        self,
        subject: Subject,
        judge: Judge,
        settings: Settings | None = None,
        store: ContinuationStore | None = None,
    ) -> None:
        self.subject, self.judge, self.settings = subject, judge, settings or subject.settings
        self.store = store or MemoryContinuations()
        self.prompts = self._prompts()

    def _prompts(self) -> list[tuple[int, ...]]:
        """The run's natural beginnings: the first tokens of texts drawn from the corpus, the same for every feature."""
        tokens, settings = self.subject.tokens, self.settings
        room = int(self.subject.model.cfg.n_ctx) - settings.new_tokens
        if settings.prompt_tokens > room:
            raise InputError(
                f"prompt_tokens + new_tokens is {settings.prompt_tokens + settings.new_tokens}, but the model reads at "
                f"most {self.subject.model.cfg.n_ctx} tokens; lower one of them"
            )
        long_enough = np.flatnonzero(tokens.lengths >= settings.prompt_tokens)
        usable = long_enough if len(long_enough) >= settings.prompts else np.flatnonzero(tokens.lengths > 0)
        generator = rng(settings.seed, "prompts")
        chosen = np.sort(generator.choice(usable, min(settings.prompts, len(usable)), replace=False))
        return [tuple(tokens[i][: settings.prompt_tokens].tolist()) for i in chosen.tolist()]

    def steer(self, indices: Sequence[int], progress: Progress | None = None) -> None:
        """Generate what is not there yet for these features, baseline included, features and factors batched together."""
        missing = [(BASELINE, 0.0)] + [(i, f) for i in dict.fromkeys(indices) for f in self.settings.steered_factors]
        missing = [pair for pair in missing if self.store.continuations(*pair) is None]
        if not missing:
            return
        subject, settings = self.subject, self.settings
        reference = np.nan_to_num([subject.reference(i) for i in subject.features.indices])
        requests = [
            Request(
                prompt=prompt,
                feature=None if index == BASELINE else subject.column(index),
                factor=factor,
                # One stream a prompt and feature, whatever the factor: factors differ by steering, not by luck.
                stream=stream(settings.seed, "continuation", index, number),
            )
            for index, factor in missing
            for number, prompt in enumerate(self.prompts)
        ]
        tokens = generate(
            subject.model,
            subject.features,
            requests,
            torch.tensor(reference, dtype=torch.float32),
            mode=settings.mode,  # pyright: ignore[reportArgumentType]
            new_tokens=settings.new_tokens,
            temperature=settings.temperature,
            progress=progress,
        )
        decode: Callable[[Any], str] = subject.model.tokenizer.decode
        for position, (index, factor) in enumerate(missing):
            rows = tokens[position * len(self.prompts) : (position + 1) * len(self.prompts)]
            self.store.keep_continuations(index, factor, [decode(row) for row in rows])

    def ask(self, description: Description) -> Asked:
        """Begin to have a description's continuations rated, in the background; `steer` has generated them."""
        pairs = [(0.0, BASELINE)] + [(factor, description.index) for factor in self.settings.steered_factors]
        texts: dict[float, Texts] = {}
        for factor, index in pairs:
            kept = self.store.continuations(index, factor)
            if kept is None:
                raise InputError(
                    f"feature {index} has no continuations at factor {factor}; call steer([{index}]) first"
                )
            texts[factor] = kept
        seed = stream(self.settings.seed, "continuation order", description.key)
        flat = [text for group in texts.values() for text in group]
        return Asked(texts, self.judge.submit_rate(description.text, flat, seed=seed))

    def measure(self, description: Description, asked: Asked) -> FaithfulnessEvidence:
        """Faithfulness, once the judge has answered."""
        answers = iter(asked.answer.result())
        by_factor = {factor: [next(answers) for _ in texts] for factor, texts in asked.texts.items()}
        seed = stream(self.settings.seed, "faithfulness halves", description.key)
        metric = faithfulness(
            {factor: rating_values(ratings) for factor, ratings in by_factor.items()},
            preset=self.settings.preset,
            seed=seed,
        )
        decode: Callable[[Any], str] = self.subject.model.tokenizer.decode
        prompts = [decode(list(prompt)[1 if self.subject.features.prepend_bos else 0 :]) for prompt in self.prompts]
        return FaithfulnessEvidence(
            metric,
            tuple(
                Continuation(factor, prompt, text, rating.value, rating.score, rating.reason)
                for factor, texts in asked.texts.items()
                for prompt, text, rating in zip(prompts, texts, by_factor[factor], strict=True)
            ),
        )

    def gate(self, description: Description, clarity: Metric, responsiveness: Metric) -> Metric | None:
        """None if Faithfulness is to be measured, else the undefined metric that says why it is not."""
        threshold = self.settings.gate
        if not np.isfinite(self.subject.reference(description.index)):
            return Metric(None, "the feature never fires on the corpus, so steering has no unit")
        if threshold is None:
            return None
        for name, metric in (("Clarity", clarity), ("Responsiveness", responsiveness)):
            if metric.value is None:
                return Metric(None, f"gate not passed: {name} is undefined ({metric.reason})")
            if metric.value < threshold:
                return Metric(None, f"gate not passed: {name} is {metric.value:.2f}, below {threshold:g}")
        return None

    def evaluate(self, descriptions: Any) -> dict[Description, FaithfulnessEvidence]:
        """Faithfulness alone and without a gate, for a table of descriptions (see `read_descriptions`)."""
        chosen = read_descriptions(descriptions)
        self.steer([d.index for d in chosen])
        asked = {d: self.ask(d) for d in chosen}
        return {d: self.measure(d, answer) for d, answer in asked.items()}
