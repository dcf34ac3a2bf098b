"""Known truth in the model at hand: latents that fire on the words of a class and write them, judged by a rule. No network is used.

A latent reads the embeddings: a linear threshold that the embeddings of its words pass and those of no other token of the vocabulary
(this is checked). It writes along the direction of the last residual stream that raises its words' logits above all others. So "names of animals" is true
of such a latent whatever the model is, and a whole run must say so: all four scores near 1, and near 0 where descriptions are shuffled.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from sae_lens import SAE
from sae_lens.registry import SAE_CLASS_REGISTRY
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor

from fade_lens._util.brief import Brief
from fade_lens._util.errors import InputError
from fade_lens._util.seeds import rng
from fade_lens.judge import Judge
from fade_lens.llm.chat import Answer
from fade_lens.llm.request import Request
from fade_lens.runs.fade import Fade
from fade_lens.runs.results import Results
from fade_lens.runs.settings import Settings
from fade_lens.scorers.fade import METRICS
from fade_lens.subject.hooks import Model, device_of, is_bridge, model_name, read_hooks, resolve_hook

CLASSES: dict[str, tuple[str, ...]] = {
    "names of animals": ("cat", "dog", "horse", "cow", "owl", "fox"),
    "names of colours": ("red", "green", "blue", "yellow", "black", "white"),
    "verbs of the third person": ("runs", "sleeps", "eats", "jumps", "sees", "hides"),
}
"""Concepts and all their words."""
FILLERS = ("the", "a", "and", "in", "on", "house", "tree", "river", "big", "small", "old", "new", "again", "today")
"""Words of no class, of which natural texts are made."""
LEAST_WORDS = 3
"""Words of a class that must be single tokens of the model."""
VOCABULARY_CHUNK = 4096
SETTINGS = Settings(
    factors=(0.5, 1.0, 2.0), prompts=12, prompt_tokens=6, new_tokens=8, rated_texts=200, synthetic_texts=20, gate=None
)


@dataclass(frozen=True)
class Planted(Brief):
    """What a run found of planted latents: with their true descriptions, and with each description at another latent."""

    true: Results
    shuffled: Results

    @property
    def passed(self) -> bool:
        """Whether every true score is above 0.5 and every shuffled one below."""
        for name in METRICS:
            right = [result.metrics[name].value or 0.0 for result in self.true]
            wrong = [result.metrics[name].value or 0.0 for result in self.shuffled]
            if min(right) <= 0.5 or max(wrong) >= 0.5:
                return False
        return True


def planted(model: Model, *, n_texts: int = 400, settings: Settings = SETTINGS, progress: bool = False) -> Planted:
    """Plant latents of known truth in a model and score their true and their shuffled descriptions, by a rule judge.

    Args:
        model: any model that `Fade` takes; it is not changed.
        n_texts: made-up natural texts, one in sixteen with a word of each class.
        settings: of both runs; `factors` are in units of the norm of the model's last residual stream.

    Raises:
        InputError: fewer than two classes have `LEAST_WORDS` words that are single tokens of this model.
    """
    tokens = class_tokens(model)
    if len(tokens) < 2:
        raise InputError(
            f"{model_name(model)} has single tokens for {len(tokens)} classes of words; a planted test needs at least 2 with "
            f"{LEAST_WORDS} words each, such as {', '.join(next(iter(CLASSES.values())))}"
        )
    texts = made_up_texts(n_texts, {c: tuple(of) for c, of in tokens.items()}, settings.seed)
    concepts = list(tokens)
    sae = planted_latents(model, [sorted({i for ids in of.values() for i in ids}) for of in tokens.values()], texts)
    with Judge(
        PlantedRule({c: tuple(of) for c, of in tokens.items()}), texts_per_request=200, price=(0.0, 0.0)
    ) as judge:
        fade = Fade(model, sae, corpus=texts, judge=judge, settings=settings, health_texts=0)
        true = fade.evaluate(dict(enumerate(concepts)), progress=progress)
        shuffled = fade.evaluate(dict(enumerate(concepts[1:] + concepts[:1])), progress=progress)
    return Planted(true, shuffled)


def class_tokens(model: Model) -> dict[str, dict[str, tuple[int, ...]]]:
    """For each class with enough of them, the words that are single tokens, with the ids they have with and without a space before."""
    encode: Callable[..., Any] = model.tokenizer
    unknown = getattr(model.tokenizer, "unk_token_id", None)

    def ids(word: str) -> tuple[int, ...]:
        found = [encode(form, add_special_tokens=False)["input_ids"] for form in (f" {word}", word)]
        single = {row[0] for row in found if len(row) == 1 and row[0] != unknown}
        # Inside a text a word stands after a space: that form must be one token.
        return tuple(sorted(single)) if len(found[0]) == 1 and single else ()

    known = {concept: {word: ids(word) for word in words} for concept, words in CLASSES.items()}
    kept = {concept: {word: of for word, of in words.items() if of} for concept, words in known.items()}
    return {concept: words for concept, words in kept.items() if len(words) >= LEAST_WORDS}


def made_up_texts(n: int, words: dict[str, tuple[str, ...]], seed: int) -> list[str]:
    """Texts of words of no class, one in sixteen with a word of each class, never in the first place."""
    random, texts = rng(seed, "planted texts"), list[str]()
    for _ in range(n):
        text = [str(word) for word in random.choice(FILLERS, random.integers(6, 14))]
        for members in words.values():
            if random.random() < 1 / 16:
                text[int(random.integers(1, len(text)))] = str(random.choice(members))
        texts.append(" ".join(text))
    return texts


def planted_latents(model: Model, classes: Sequence[Sequence[int]], texts: Sequence[str]) -> SAE[Any]:
    """A transcoder from the embeddings to the last residual stream, one latent for each class of token ids."""
    read = "embed.hook_out" if is_bridge(model) else "hook_embed"
    write = f"blocks.{int(model.cfg.n_layers) - 1}.hook_resid_post"
    vocabulary = embeddings(model, read)
    weights, bias, threshold = separators(vocabulary, classes)
    d_in, d_out = vocabulary.shape[1], int(model.cfg.d_model)
    sae_class, config = SAE_CLASS_REGISTRY["jumprelu_transcoder"]
    options: dict[str, Any] = {"d_in": d_in, "d_out": d_out, "d_sae": len(classes), "device": str(device_of(model))}
    metadata = SAEMetadata(hook_name=read, hook_name_out=write)
    sae = cast(Any, sae_class)(cast(Any, config)(**options, apply_b_dec_to_input=False, metadata=metadata))
    with torch.no_grad():
        sae.W_enc.copy_(weights)
        sae.b_enc.copy_(bias)
        sae.threshold.copy_(threshold)
        sae.W_dec.copy_(written(model, classes) * residual_norm(model, write, texts))
        sae.b_dec.zero_()
    return sae


def embeddings(model: Model, hook: str) -> Float[Tensor, "token d_in"]:
    """What every token of the vocabulary is at the embedding's hook, float32."""
    ids, name = torch.arange(int(model.cfg.d_vocab)), resolve_hook(model, hook)
    with torch.no_grad():
        parts = [read_hooks(model, part[:, None], [name])[name][:, 0].float() for part in ids.split(VOCABULARY_CHUNK)]
    return torch.cat(parts)


def separators(
    vocabulary: Float[Tensor, "token d_in"], classes: Sequence[Sequence[int]]
) -> tuple[Float[Tensor, "d_in latent"], Float[Tensor, " latent"], Float[Tensor, " latent"]]:
    """Weights, biases and thresholds that the tokens of each class pass and no other token does.

    Raises:
        InputError: a class that no such line separates.
    """
    weights, bias = least_squares(vocabulary, classes)
    response = vocabulary @ weights + bias
    thresholds: list[Tensor] = []
    for number, members in enumerate(classes):
        inside = torch.zeros(len(vocabulary), dtype=torch.bool, device=vocabulary.device)
        inside[list(members)] = True
        low, high = response[inside, number].min(), response[~inside, number].max()
        if not low > high:
            raise InputError(
                f"class {number}: no line separates the embeddings of its {len(members)} tokens from all others"
            )
        thresholds.append((low + high) / 2)
    return weights, bias, torch.stack(thresholds).clamp(min=0)


def least_squares(
    rows: Float[Tensor, "token d"], classes: Sequence[Sequence[int]], ridge: float = 1e-6
) -> tuple[Float[Tensor, "d latent"], Float[Tensor, " latent"]]:
    """Weights and biases that give 1 for a class' rows and 0 for all others, the few weighted as much as the many."""
    device = rows.device
    x = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
    x = x.cpu() if device.type == "mps" else x  # which has no float64
    gram = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for part in x.split(VOCABULARY_CHUNK):
        gram += part.double().T @ part.double()
    lines: list[Tensor] = []
    for members in classes:
        own, heavy = x[list(members)].double(), len(x) / len(members)
        left = gram + (heavy - 1) * own.T @ own
        left += ridge * left.diagonal().mean() * torch.eye(len(left), dtype=left.dtype, device=left.device)
        lines.append(torch.linalg.solve(left, heavy * own.sum(dim=0)))
    weights = torch.stack(lines, dim=1).float().to(device)
    return weights[:-1], weights[-1]


def written(model: Model, classes: Sequence[Sequence[int]]) -> Float[Tensor, "latent d_out"]:
    """Unit directions of the last residual stream that raise the logits of each class' tokens above all others'."""
    unembedding = cast(Any, model).W_U.detach().float().T
    scale = getattr(getattr(model, "ln_final", None), "w", None)  # what the final norm multiplies by, unless folded in
    rows = unembedding if scale is None else unembedding * scale.detach().float()
    # A strong ridge: of the directions that part the class from the rest, one that moves its logits much.
    raised = least_squares(rows, classes, ridge=0.1)[0].T
    return raised / raised.norm(dim=-1, keepdim=True)


def residual_norm(model: Model, hook: str, texts: Sequence[str], n: int = 32) -> float:
    """Median norm of the residual stream at a hook, over a few texts' positions but the first."""
    name, encode = resolve_hook(model, hook), cast(Callable[..., Any], model.tokenizer)
    norms: list[Any] = []
    with torch.no_grad():
        for text in texts[:n]:
            tokens = torch.tensor([encode(text)["input_ids"]])
            norms.append(read_hooks(model, tokens, [name])[name][0, 1:].float().norm(dim=-1).cpu().numpy())
    return float(np.median(np.concatenate(norms)))


class PlantedRule:
    """A model that knows the truth: it rates a text 2 where it has a word of the concept's class, else 0, and writes such texts."""

    name = "planted rule"

    def __init__(self, words: Mapping[str, Sequence[str]]) -> None:
        self._words = words

    async def ask(self, request: Request) -> Answer:
        """Ratings or texts, as the judge asks for them."""
        words = self._words.get(request.concept, FILLERS[:1])
        if request.kind == "rate":
            found = {name: bool(set(re.findall(r"\w+", text)) & set(words)) for name, text in request.texts.items()}
            return Answer(json.dumps({"ratings": [{"id": name, "rating": 2 * there} for name, there in found.items()]}))
        random = rng(request.parameters["seed"], "planted judge", request.concept)
        texts = [" ".join([*random.choice(FILLERS, 6), str(random.choice(words))]) for _ in range(request.parts)]
        return Answer(json.dumps({"texts": texts}))
