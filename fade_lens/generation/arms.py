"""What it does to a model's predictions to put an SAE's reconstruction, or an ablation, in the place of its activations.

Special tokens keep their activations in every arm but "everywhere", which is SAELens' zero ablation: it destroys BOS as well.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fade_lens._util.progress import Advance
from fade_lens._util.seeds import rng
from fade_lens.generation.decoders.choosing import after_blocks
from fade_lens.generation.decoders.heads import Head, Logits
from fade_lens.generation.decoders.hooked import HookedDecoder
from fade_lens.subject.activations import Batch, batches, usual_tokens
from fade_lens.subject.hooks import HookTensor, Model, device_of, forward_hooks, is_bridge, running
from fade_lens.subject.reconstruction import Reconstruction
from fade_lens.subject.tokens import TokenizedTexts

Arm = Literal["clean", "sae", "sae_error", "zero", "mean", "everywhere"]
"""The model as it is; the SAE; the SAE and what it missed of the model as it is, which must be clean; ablations to zero and to the mean; zero at
special tokens as well."""
EVERY_ARM: tuple[Arm, ...] = ("sae", "sae_error", "zero", "mean", "everywhere")
STATE_BYTES = 2**28
"""Bytes of the states of all arms in memory at a time; a bridge's are the logits of its whole vocabulary."""
LOGIT_BYTES = 2**26
"""Bytes of one arm's log-probabilities in memory at a time."""


def reader(model: Model, hooks: Sequence[str]) -> tuple[Head, Callable[[Int[Tensor, "text pos"]], Float[Tensor, "text pos d_state"]]]:  # fmt: skip
    """What makes a model's logits, and of what: the model's own way to the state of every position of texts padded on the right."""
    if is_bridge(model):
        bridge: Any = model
        d_vocab = int(bridge.original_model.get_output_embeddings().weight.shape[0])
        # Without a mask a bridge takes padding to stand on the left.
        return Logits(d_vocab, device_of(model)), lambda ids: bridge(ids, attention_mask=torch.ones_like(ids))
    decoder = HookedDecoder(model, whole=any(map(after_blocks, hooks)))
    return decoder.head, decoder.states


class Arms:
    """The arms of one SAE on one batch of texts at a time.

    Args:
        made: the SAE in its model.
        mean: of the target over tokens that count, for the mean ablation.
    """

    def __init__(self, made: Reconstruction, mean: Float[Tensor, " d_out"]) -> None:
        self.made, self._mean = made, mean
        with running(made.model, made.hooks):
            self.head, self._states = reader(made.model, made.hooks)

    def states(self, ids: Int[Tensor, "text pos"], counted: Bool[Tensor, "text pos"], arms: Sequence[Arm]) -> Iterator[tuple[Arm, Float[Tensor, "text pos d_state"]]]:  # fmt: skip
        """The state of every position, first of the model as it is, then in each arm."""
        ids, error = ids.to(device_of(self.made.model)), list[Tensor]()

        def watch(target: HookTensor, read: HookTensor) -> None:
            flat = self.made.features.flatten(target)
            error.append(flat.float() - self.made.of(read).to(flat.device))

        yield "clean", self._run(ids, watch if "sae_error" in arms else lambda *_: None)
        for arm in arms:
            yield arm, self._run(ids, lambda target, read, arm=arm: self._replaced(arm, target, read, counted, error))

    def _replaced(self, arm: Arm, target: HookTensor, read: HookTensor, counted: Bool[Tensor, "text pos"], error: Sequence[Tensor]) -> HookTensor:  # fmt: skip
        """The tensor of the write hook in an arm."""
        flat = self.made.features.flatten(target)
        if arm == "mean":
            new = self._mean.to(flat).expand_as(flat)
        elif arm in ("sae", "sae_error"):
            new = self.made.of(read).to(flat.device)
            new = new + error[0] if arm == "sae_error" else new
        else:
            new = torch.zeros_like(flat)
        return self.made.put(target, new, torch.ones_like(counted) if arm == "everywhere" else counted)

    def _run(self, ids: Int[Tensor, "text pos"], act: Callable[[HookTensor, HookTensor], HookTensor | None]) -> Float[Tensor, "text pos d_state"]:  # fmt: skip
        """The states, where `act` is told the tensors that are written and read, and gives what is to be written."""
        read_hook, write_hook, seen = self.made.features.read_hook, self.made.features.write_hook, list[Tensor]()
        hooks: list[tuple[str, Any]] = [(write_hook, lambda target, hook: act(target, seen[-1] if seen else target))]  # noqa: ARG005
        if read_hook != write_hook:
            hooks.insert(0, (read_hook, lambda tensor, hook: seen.append(tensor)))  # noqa: ARG005
        with torch.no_grad(), forward_hooks(self.made.model, hooks):
            return self._states(ids)


class Places(NamedTuple):
    """Tokens of a batch that count: the row in the batch, the position, and the next token (-1 behind the last)."""

    row: Int[Tensor, " place"]
    position: Int[Tensor, " place"]
    next: Int[Tensor, " place"]


def losses(
    made: Reconstruction,
    mean: Float[Tensor, " d_out"],
    tokens: TokenizedTexts,
    arms: Sequence[Arm] = EVERY_ARM,
    *,
    most: int | None = None,
    seed: int = 0,
    progress: Advance | None = None,
) -> Mapping[str, Float[np.ndarray, " text"]]:
    """Cross-entropy of the next token, and KL divergence from the model as it is, in each arm, summed over the tokens of each text, in nats.

    A token counts that is not special; its prediction of a special one (EOS) counts as well. Only such positions are unembedded.

    Args:
        made: the SAE in its model.
        mean: of the target, for the mean ablation.
        tokens: the texts.
        arms: beside the model as it is.
        most: tokens of each text at most, drawn at random by `seed`; None: all. Where a vocabulary is large, unembedding costs more than the model.
        progress: called with the number of texts that have run.

    Returns:
        For each text `n_ce` (tokens with a next one), `n_kl`, and `ce_ARM` and `kl_ARM`; `kl_clean` is 0.
    """
    running_arms = Arms(made, mean)
    head = running_arms.head
    names = ("n_ce", "n_kl", *(f"{kind}_{arm}" for kind in ("ce", "kl") for arm in ("clean", *arms)))
    found = {name: np.zeros(len(tokens)) for name in names}
    size = max(1, min(usual_tokens(made.model, tokens), STATE_BYTES // (4 * head.d_state * (1 + len(arms)))))
    at_once = max(1, LOGIT_BYTES // (4 * head.d_vocab))
    for batch in batches(tokens, size):
        places = counted_places(batch, tokens.lengths[batch.texts], most, seed)
        states = {a: s[places.row.to(s.device), places.position.to(s.device)] for a, s in running_arms.states(batch.ids, batch.counted, arms)}  # fmt: skip
        texts = batch.texts[places.row.numpy()]
        np.add.at(found["n_kl"], texts, 1.0)
        np.add.at(found["n_ce"], texts, (places.next >= 0).double().numpy())
        for start in range(0, len(texts), at_once):
            some = slice(start, start + at_once)
            clean = head.log_probabilities(states["clean"][some])
            following = places.next[some].to(clean.device)
            for arm in states:
                own = clean if arm == "clean" else head.log_probabilities(states[arm][some])
                ce = -own.gather(1, following.clamp(min=0)[:, None])[:, 0].double().masked_fill(following < 0, 0)
                kl = (
                    (clean.exp() * (clean - own)).sum(-1, dtype=torch.float64).clamp(min=0)
                )  # below it by rounding alone
                for kind, values in (("ce", ce), ("kl", kl)):
                    np.add.at(found[f"{kind}_{arm}"], texts[some], values.cpu().numpy())
        if progress is not None:
            progress(len(batch.texts))
    return found


def counted_places(batch: Batch, lengths: Int[np.ndarray, " text"], most: int | None, seed: int) -> Places:
    """The tokens of a batch that count, of each text so many at most."""
    counted = batch.counted
    if most is not None:
        counted = torch.zeros_like(counted)
        for row, text in enumerate(batch.texts.tolist()):
            there = batch.counted[row].nonzero().squeeze(-1).numpy()
            counted[row, rng(seed, "loss", text).permutation(there)[:most]] = True
    row, position = counted.nonzero(as_tuple=True)
    last = position + 1 >= torch.from_numpy(lengths)[row]
    following = torch.where(last, -1, batch.ids[row, (position + 1).clamp(max=batch.ids.shape[1] - 1)])
    return Places(row, position, following)


class Said(NamedTuple):
    """What a model makes of an answer in an arm: its rank among all tokens, from 1, and its probability."""

    arm: Arm
    rank: int
    probability: float


def answered(made: Reconstruction, mean: Float[Tensor, " d_out"], ids: Sequence[int], counted: Bool[Tensor, "1 pos"], answer: int, arms: Sequence[Arm]) -> Iterator[Said]:  # fmt: skip
    """The rank and the probability of one token after a prompt, of the model as it is and in each arm."""
    running_arms = Arms(made, mean)
    for arm, state in running_arms.states(torch.tensor([list(ids)]), counted, arms):
        own = running_arms.head.log_probabilities(state[:, -1])[0]
        yield Said(arm, int((own > own[answer]).sum()) + 1, float(own[answer].exp()))
