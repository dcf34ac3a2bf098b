"""The parts of a decoding step, each against a plain computation of the same."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformer_lens.model_bridge import TransformerBridge

from fade_lens._util.errors import InputError
from fade_lens.generation.decoders.attention import attended, attended_at_once
from fade_lens.generation.decoders.base import Decoder, left_padded
from fade_lens.generation.decoders.blocks import CompactBlock, OwnBlock, Span, agrees, compact_blocks, compact_form
from fade_lens.generation.decoders.bridge import BridgeDecoder
from fade_lens.generation.decoders.choosing import decoder_of, has_hooks
from fade_lens.generation.decoders.compact import CompactDecoder
from fade_lens.generation.decoders.heads import Logits, Unembedding
from fade_lens.generation.decoders.hooked import HookedDecoder
from fade_lens.generation.decoders.linear import linear, onednn, packed
from fade_lens.generation.next_token import Sampler, inverse_cdf
from fade_lens.generation.steering import Request, generate
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import forward_hooks
from tests.architectures import ARCHITECTURES, LAYERS, VOCABULARY, bridge, gemma3_hf, gpt2_hf, hooked, sae_at

CPU = torch.device("cpu")
PROMPTS = [(2, 40, 7), tuple(range(2, 16))]  # the longer one exceeds Gemma's tiny window
FAMILIAR = [name for name in ARCHITECTURES if name != "alibi"]


@pytest.mark.parametrize("architecture", FAMILIAR)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_familiar_blocks_are_compact(architecture: str, dtype: torch.dtype) -> None:
    blocks = compact_blocks(hooked(architecture, dtype=dtype), *left_padded(PROMPTS, CPU))
    assert [type(b) for b in blocks] == [CompactBlock] * LAYERS


@pytest.mark.parametrize("change", [{"positional_embedding_type": "alibi"}, {"clip_qkv": 1.0}, {"attention_dir": "x"}])
def test_unfamiliar_blocks_run_as_they_are(change: dict[str, Any]) -> None:
    model = hooked("gpt2")
    for name, value in change.items():
        setattr(model.blocks[0].cfg, name, value)
    assert compact_form(model.blocks[0]) is None


@pytest.mark.parametrize("part", ["W_O", "b_V", "W_in", "b_out", "ln2.w", "ln1.b"])
def test_a_block_that_differs_is_found(part: str) -> None:
    model = hooked("gpt2")
    tokens, real = left_padded(PROMPTS, CPU)
    compact = compact_form(model.blocks[1])
    assert compact is not None
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, attention_mask=real.int())
        before, after = cache["blocks.1.hook_resid_pre"], cache["blocks.1.hook_resid_post"]
        assert agrees(compact, before, after, real)
        owner = model.blocks[1].mlp if part in ("W_in", "b_out") else model.blocks[1].attn
        owner = getattr(model.blocks[1], part[:3]) if "." in part else owner
        parameter = getattr(owner, part.split(".")[-1])
        parameter.copy_(parameter * 1.01 + 0.01)
        _, cache = model.run_with_cache(tokens, attention_mask=real.int())
        stale = CompactBlock(hooked("gpt2").blocks[1])
        assert not agrees(stale, cache["blocks.1.hook_resid_pre"], cache["blocks.1.hook_resid_post"], real)


def test_a_block_that_differs_is_replaced(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    model, made, computed, third = hooked("llama"), CompactBlock.__init__, CompactBlock.__call__, []

    def noted(self: CompactBlock, block: Any) -> None:
        made(self, block)
        third.extend([self] if block is model.blocks[2] else [])

    def wrong(self: CompactBlock, residual: Any, span: Any) -> Any:
        return computed(self, residual, span) * (1.001 if self in third else 1)

    monkeypatch.setattr(CompactBlock, "__init__", noted)
    monkeypatch.setattr(CompactBlock, "__call__", wrong)
    with torch.no_grad():
        blocks = compact_blocks(model, *left_padded(PROMPTS, CPU))
    assert [type(b) for b in blocks] == [CompactBlock, CompactBlock, OwnBlock, CompactBlock]
    assert "blocks.2" in caplog.text


def test_masks_and_positions() -> None:
    real = torch.tensor([[False, True, True, True], [True] * 4])
    mask = Span(2, 2, real, CPU, {}).mask(window=2)
    assert mask is not None
    # rows of queries 2 and 3 over keys 0 to 3; a window of 2 is the position itself and the one before
    assert mask[:, 0].int().tolist() == [[[0, 1, 1, 0], [0, 0, 1, 1]]] * 2
    first = Span(0, 4, real, CPU, {}).mask(window=None)
    assert first is not None
    assert first[0, 0].int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]]
    assert Span(3, 1, real, CPU, {}).positions().tolist() == [[2], [3]]
    assert Span(3, 1, None, CPU, {}).mask(window=4) is None
    assert Span(3, 1, None, CPU, {}).mask(window=3) is not None


def test_angles_are_made_once_for_all_positions_that_are_expected() -> None:
    attn, tables = hooked("gemma2").blocks[0].attn, dict[Any, tuple[torch.Tensor, torch.Tensor]]()
    for before, pos in ((0, 5), (5, 1), (12, 1)):
        Span(before, pos, None, CPU, tables, expected=13).angles(attn)
        ((sin, _),) = tables.values()
        assert len(sin) == 13


def kinds_run(decoder: CompactDecoder, monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """Which kinds of block a text goes through, in order."""
    run: list[type] = []
    with monkeypatch.context() as patch:
        for kind in (CompactBlock, OwnBlock):
            through = kind.__call__
            patch.setattr(kind, "__call__", lambda *some, k=kind, f=through: (run.append(k), f(*some))[1])
        decoder.states(torch.tensor([[2, 3]]))
    return run


def test_which_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    model, hook = hooked("gpt2"), "blocks.1.hook_mlp_out"
    with torch.no_grad():
        outside = decoder_of(model, ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"], PROMPTS)
        assert isinstance(outside, CompactDecoder)
        assert set(kinds_run(outside, monkeypatch)) == {CompactBlock}
        decoder = decoder_of(model, [hook], PROMPTS)
        assert isinstance(decoder, CompactDecoder)
        assert kinds_run(decoder, monkeypatch) == [CompactBlock, OwnBlock, CompactBlock, CompactBlock]
        assert isinstance(decoder_of(model, ["ln_final.hook_normalized"], PROMPTS), HookedDecoder)
        assert isinstance(decoder_of(bridge(gpt2_hf()), [hook], PROMPTS), BridgeDecoder)
        assert not has_hooks(model)
        with forward_hooks(model, [("blocks.0.hook_resid_pre", lambda x, hook: x)]):
            assert isinstance(decoder_of(model, [hook], PROMPTS), HookedDecoder)
        handle = model.blocks[0].register_forward_hook(lambda *args: None)
        assert isinstance(decoder_of(model, [hook], PROMPTS), HookedDecoder)
        handle.remove()


def test_a_bridge_that_loses_its_cache_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As TransformerLens 3.9 does with transformers 5.24."""
    models = [bridge(gpt2_hf()), bridge(gemma3_hf())]
    prompts = [[(2,)], [(2, 2)], PROMPTS]
    with torch.no_grad():
        for model in models:
            for some in prompts:
                decoder_of(model, ["blocks.1.hook_mlp_out"], some)

        def forgetful(self: Any, tokens: Any, *, attention_mask: Any, past_key_values: Any, **options: Any) -> Any:
            return forward(self, tokens, attention_mask=attention_mask[:, -tokens.shape[1] :], **options)

        forward = TransformerBridge.forward
        monkeypatch.setattr(TransformerBridge, "forward", forgetful)
        for model in models:
            for some in prompts:
                with pytest.raises(InputError, match="loses its key-value cache"):
                    decoder_of(model, ["blocks.1.hook_mlp_out"], some)


@pytest.mark.parametrize(
    ("hooks", "rows"),
    [
        (["blocks.2.hook_resid_pre"], [2, 2, 4, 4]),
        (["blocks.2.hook_resid_post"], [2, 2, 2, 4]),  # the hooked block too, but for what leaves it
        (["blocks.2.hook_resid_post", "blocks.2.hook_mlp_out"], [2, 2, 4]),  # block 2 runs as it is, on all rows
        (["blocks.1.hook_resid_post", "blocks.2.hook_mlp_out"], [2, 2, 4]),
        (["blocks.1.hook_resid_post", "blocks.1.hook_resid_pre"], [2, 4, 4, 4]),
    ],
)
def test_equal_prompts_run_once_up_to_the_first_hook(
    monkeypatch: pytest.MonkeyPatch, hooks: list[str], rows: list[int]
) -> None:
    model, seen, steered = hooked("gpt2"), [], []
    original = CompactBlock.through

    def watch(self: CompactBlock, residual: Any, span: Any) -> Any:
        seen.append(len(residual))
        return original(self, residual, span)

    class NoSteering:
        def hooks(self) -> Any:
            return [(name, lambda x, hook: steered.append(len(x))) for name in hooks]

    with torch.no_grad():
        decoder = decoder_of(model, hooks, PROMPTS)
        monkeypatch.setattr(CompactBlock, "through", watch)
        with decoder.steered(NoSteering()):
            decoder.start(*left_padded([PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[0]], CPU), 3)
    assert seen == rows
    assert steered == [4] * len(hooks)


class Unsteered:
    def hooks(self) -> list[tuple[str, Any]]:
        return []


DECODERS: dict[str, Any] = {
    "compact": lambda: CompactDecoder(hooked("gemma2"), ["blocks.1.hook_resid_post"], PROMPTS),
    "hooked": lambda: HookedDecoder(hooked("gemma2"), whole=False),
    "hooked, with logits": lambda: HookedDecoder(hooked("gemma2"), whole=True),
    "bridge": lambda: BridgeDecoder(bridge(gemma3_hf()), PROMPTS[0]),
}


@torch.no_grad()
@pytest.mark.parametrize("kind", DECODERS)
def test_every_decoder_keeps_to_the_protocol(kind: str) -> None:
    """What `step` says with its cache `states` says of the whole text; a batch knows nothing of the one before."""
    decoder, generator = DECODERS[kind](), torch.Generator().manual_seed(3)
    texts = torch.randint(3, VOCABULARY, (4, 12), generator=generator)
    texts[1, :9] = texts[0, :9]  # equal prompts
    assert isinstance(decoder, Decoder)

    def stepped() -> torch.Tensor:
        with decoder.steered(Unsteered()):
            state = decoder.start(texts[:, :9], torch.ones(4, 9, dtype=torch.bool), 3)
            return torch.stack([state, *(decoder.step(texts[:, at]) for at in range(9, 12))], dim=1)

    first, whole = stepped(), decoder.states(texts)
    torch.testing.assert_close(first, whole[:, 8:], rtol=1e-4, atol=1e-4)
    assert whole.shape[-1] == decoder.head.d_state
    decoder.states(texts.flip(0))
    torch.testing.assert_close(stepped(), first, rtol=0, atol=0)
    torch.testing.assert_close(stepped(), first, rtol=0, atol=0)  # in the buffers of the batch before


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("top_k", [None, 3, 1000])
def test_next_token(monkeypatch: pytest.MonkeyPatch, temperature: float, top_k: int | None, waits: bool) -> None:
    monkeypatch.setattr("fade_lens.generation.next_token.PART", 25)
    monkeypatch.setattr("fade_lens.generation.decoders.heads.CPU_CHUNK", 64)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, VOCABULARY, generator=generator) * 3
    forbidden = torch.tensor([0, 70, 299, int(logits[0].argmax())])
    drawn = np.random.default_rng(0).random((50, 2))
    found = Sampler(Logits(VOCABULARY, CPU), drawn, forbidden, temperature, top_k, waits=waits).choose(logits, 1)
    allowed = logits.double().index_fill(1, forbidden, -torch.inf)
    if temperature == 0:
        expected = allowed.argmax(-1)
    else:
        lowest = allowed.topk(min(top_k or VOCABULARY, VOCABULARY)).values[:, -1:]
        shares = (allowed.where(allowed >= lowest, -torch.inf) / temperature).softmax(-1)
        expected = (shares.cumsum(-1) <= torch.tensor(drawn[:, 1:])).sum(-1)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sampling", [(0.0, None), (0.7, None), (1.3, 40)])
def test_tokens_are_the_same_whether_or_not_the_device_is_waited_for(sampling: Any, dtype: torch.dtype) -> None:
    """Of a vocabulary with a last chunk and a last part that are shorter; but for rounding, which turns one in a hundred thousand."""
    generator = torch.Generator().manual_seed(0)
    W_U, state = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((16, 20_000), (2_000, 16)))
    head, forbidden = Unembedding(W_U, torch.zeros(20_000, dtype=dtype), 30.0), torch.tensor([0, 1, 2, 8192, 19_999])
    drawn = np.random.default_rng(0).random((len(state), 1))
    found = [Sampler(head, drawn, forbidden, *sampling, waits=waits).choose(state, 0) for waits in (True, False)]
    assert int((found[0] != found[1]).sum()) <= 1
    assert len(found[0].unique()) > 500 and not torch.isin(found[1], forbidden).any()


@pytest.mark.parametrize("kind", ["step", "prompt", "window and padding"])
@pytest.mark.parametrize("group", [1, 3])
def test_attention_at_once_is_the_same(kind: str, group: int) -> None:
    rows, heads, all_pos, e = 3, 2, 9, 8
    pos = 1 if kind == "step" else all_pos
    real = torch.arange(all_pos) >= torch.tensor([0, 4, 2])[:, None]
    span = Span(all_pos - pos, pos, real if "padding" in kind else None, CPU, {})
    mask = span.mask(4 if "window" in kind else None)
    q, keys, values = (torch.randn(rows, heads, n, e) for n in (group * pos, all_pos, all_pos))
    scores = torch.einsum("rhgpe,rhke->rhgpk", q.unflatten(2, (group, pos)), keys) / 3
    scores = scores if mask is None else scores.masked_fill(~mask[:, :, None], -torch.inf)
    expected = torch.einsum("rhgpk,rhke->rhgpe", scores.softmax(-1), values).flatten(2, 3)
    torch.testing.assert_close(attended(q, keys, values, mask, 1 / 3), expected)
    torch.testing.assert_close(attended_at_once(q, keys, values, mask, 1 / 3), expected)


def test_inverse_cdf_at_its_ends() -> None:
    shares = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]], dtype=torch.float64).expand(5, -1)
    numbers = torch.tensor([[0.0], [0.2499], [0.25], [1 - 2**-53], [1.5]], dtype=torch.float64)
    assert inverse_cdf(shares, numbers).flatten().tolist() == [1, 1, 3, 3, 3]


@pytest.mark.parametrize("soft_cap", [0.0, 2.0])
def test_unembedding_in_chunks(monkeypatch: pytest.MonkeyPatch, soft_cap: float) -> None:
    monkeypatch.setattr("fade_lens.generation.decoders.heads.CPU_CHUNK", 64)
    W_U, b_U, state = torch.randn(8, 150), torch.randn(150), torch.randn(5, 8)
    head = Unembedding(W_U, b_U, soft_cap)
    whole = state @ W_U + b_U
    whole = soft_cap * torch.tanh(whole / soft_cap) if soft_cap else whole
    torch.testing.assert_close(torch.cat([head.logits(state, s) for s in head.starts], dim=1), whole)


def refuse(*_: Any) -> Any:
    raise RuntimeError("no such kernel here\nException raised from a long trace")


@pytest.mark.skipif(onednn() is None, reason="this processor has no oneDNN, so the public path is all there is")
@pytest.mark.parametrize("fails", ["missing", "refuses", "is wrong"])
def test_without_onednn_s_operators_the_tokens_are_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: str
) -> None:
    model, used = hooked("gemma2"), onednn()
    features = features_of(model, sae_at("blocks.1.hook_resid_post"), [7, 2])
    requests = [Request(PROMPTS[i % 2], (0, 1, None)[i % 3], 2.0, stream=i) for i in range(6)]
    assert used is not None
    operators = SimpleNamespace(
        _is_mkldnn_bf16_supported=lambda: True,
        _reorder_linear_weight=refuse if fails == "refuses" else used.packed,
        _linear_pointwise=lambda *args: used.product(*args) + 1,
    )

    def tokens() -> list[list[int]]:
        return generate(model, features, requests, torch.tensor([2.0, 3.0]), new_tokens=6, temperature=0.8).tolist()

    expected = tokens()
    try:
        monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace() if fails == "missing" else operators)
        onednn.cache_clear()
        assert tokens() == expected
        reason = {"missing": "AttributeError", "refuses": "no such kernel here)", "is wrong": "should be"}[fails]
        assert len(caplog.records) == 1 and reason in caplog.text and onednn() is None
    finally:
        monkeypatch.undo()
        onednn.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu", "relu", None])
def test_linear(dtype: torch.dtype, bias: bool, activation: Any) -> None:
    plain: dict[Any, Any] = {
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "silu": F.silu,
        "relu": F.relu,
        None: lambda x: x,
    }
    x, wide = torch.randn(3, 4, 16, dtype=dtype), torch.randn(16, 40, dtype=dtype)
    b = torch.randn(20, dtype=dtype) if bias else None
    expected = plain[activation](F.linear(x, wide[:, 5:25].T, b))
    close = {"rtol": 0.02, "atol": 0.02} if dtype == torch.bfloat16 else {}
    weight = wide[:, 5:25].T
    for form in (weight, weight.contiguous(), packed(weight)):
        torch.testing.assert_close(linear(x, form, b, activation), expected, **close)
        torch.testing.assert_close(linear(x[:, -1], form, b, activation), expected[:, -1], **close)
