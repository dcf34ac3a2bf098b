"""Steered generation against a slow twin: no cache, one request at a time, the whole forward pass with a plain hook."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fade_lens._util.errors import InputError
from fade_lens.generation.steering import Request, Steering, check_settings, continue_batch, decoder_for, generate
from fade_lens.subject.features import Features, features_of
from fade_lens.subject.hooks import forward_hooks, special_tokens
from tests.architectures import (
    ARCHITECTURES,
    CONTEXT,
    VOCABULARY,
    bridge,
    gemma3_hf,
    gpt2_hf,
    hooked,
    hooked_gemma3,
    sae_at,
    transcoder_at,
)

NEW = 7
HOOK = "blocks.1.hook_resid_post"
MODES = ("add", "clamp", "scale", "ablate")
SAMPLING: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 0.8},
    "top-k": {"temperature": 1.3, "top_k": 5},
}


def requests_for(features: Features, *, count: int = 12, lengths: tuple[int, ...] = (3, 9, 5, 1)) -> list[Request]:
    """Requests that mix features, factors, prompts of several lengths, equal prompts and the unsteered model."""
    rng = np.random.default_rng(5)
    prompts = [(2, *map(int, rng.integers(3, VOCABULARY, length - 1))) for length in lengths]
    factors = (1.5, -2.0, 4.0)
    chosen = [None if i % 5 == 4 else i % len(features) for i in range(count)]
    return [Request(prompts[i % len(prompts)], f, factors[i % 3], stream=i) for i, f in enumerate(chosen)]


def reference_for(features: Features) -> torch.Tensor:
    return torch.linspace(2.0, 4.0, len(features))


def slow(
    model: Any,
    features: Features,
    request: Request,
    reference: torch.Tensor,
    mode: str = "add",
    temperature: float = 0.0,
    top_k: int | None = None,
    new_tokens: int = NEW,
) -> list[int]:
    """What `generate` should give for one request, the plainest way."""
    seen: dict[str, torch.Tensor] = {}

    def read(x: torch.Tensor, hook: Any) -> None:
        seen["activation"] = features.encode(x)[..., request.feature]

    def write(x: torch.Tensor, hook: Any) -> torch.Tensor:
        target = request.factor * float(reference[request.feature])
        now = seen["activation"]
        change = {"add": target, "clamp": target - now, "scale": (request.factor - 1) * now, "ablate": -now}[mode]
        change = torch.as_tensor(change).expand(x.shape[:2])
        scale = features.write_scale(x)
        change = change * (scale if isinstance(scale, float) else scale[..., 0])
        out = x.clone()
        flat = out[:, :, features.head] if features.head is not None else out.flatten(2)
        flat += change[..., None] * features.directions()[request.feature]
        return out if features.head is not None else flat.reshape(x.shape)

    hooks = [] if request.feature is None else [(features.read_hook, read), (features.write_hook, write)]
    tokens = list(request.prompt)
    drawn = np.random.default_rng(request.stream).random(new_tokens)
    with torch.no_grad(), forward_hooks(model, hooks):
        for number in drawn:
            logits = model(torch.tensor([tokens]))[0, -1].double()
            logits[:3] = -torch.inf
            if temperature == 0:
                tokens.append(int(logits.argmax()))
                continue
            if top_k is not None:
                logits[logits < logits.topk(top_k).values[-1]] = -torch.inf
            cumulated = (logits / temperature).softmax(-1).cumsum(-1)
            tokens.append(int((cumulated <= number).sum()))
    return tokens[len(request.prompt) :]


def assert_like_slow(model: Any, features: Features, mode: Any = "add", requests: Any = None, **options: Any) -> None:
    requests, reference = requests or requests_for(features), reference_for(features)
    expected = [slow(model, features, r, reference, mode, **options) for r in requests]
    found = generate(model, features, requests, reference, mode=mode, new_tokens=NEW, **options)
    assert found.tolist() == expected
    assert len({tuple(row) for row in expected}) > len(expected) / 3, "the texts must differ for this to be a test"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny vocabulary in several chunks, the last one shorter."""
    monkeypatch.setattr("fade_lens.generation.decoders.heads.CPU_CHUNK", 64)


@pytest.fixture(scope="module")
def model() -> Any:
    return hooked("gpt2")


@pytest.fixture(scope="module")
def features(model: Any) -> Features:
    return features_of(model, sae_at(HOOK), [7, 2, 11])


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_like_the_slow_loop(model: Any, features: Features, mode: str) -> None:
    assert_like_slow(model, features, mode)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("mode", ["add", "clamp"])
def test_every_architecture_is_like_the_slow_loop(architecture: str, mode: str) -> None:
    model = hooked(architecture)
    assert_like_slow(model, features_of(model, sae_at(HOOK), [7, 2, 11]), mode)


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("architecture", ["gpt2", "gemma2"])
def test_sampling_is_like_the_slow_loop(architecture: str, sampling: str) -> None:
    model = hooked(architecture)
    assert_like_slow(model, features_of(model, sae_at(HOOK), [7, 2, 11]), **SAMPLING[sampling])


@pytest.mark.parametrize(
    "hook",
    [
        "hook_embed",
        "blocks.0.hook_resid_pre",
        "blocks.1.attn.hook_z",
        "blocks.2.mlp.hook_post",
        "blocks.2.hook_mlp_out",
        "blocks.3.hook_resid_post",
        "ln_final.hook_normalized",
    ],
)
@pytest.mark.parametrize("mode", ["add", "clamp"])
def test_neurons_of_any_hook(model: Any, hook: str, mode: str) -> None:
    assert_like_slow(model, features_of(model, hook, [3, 17, 30]), mode)


def test_neuron_of_a_single_head() -> None:
    model = hooked("qwen-folded")  # one key head: the hook's tensor is [text, pos, 1, d_head]
    assert_like_slow(model, features_of(model, "blocks.1.attn.hook_v", [3, 5]), "clamp")


@pytest.mark.parametrize("mode", ["add", "clamp"])
def test_clamped_neuron_has_the_value(model: Any, mode: str) -> None:
    features = features_of(model, "blocks.2.mlp.hook_post", [3])
    reference = torch.tensor([2.5])
    steering = Steering(model, features, [Request((2, 5), 0, 2.0, 0)], reference, mode)
    kept: list[torch.Tensor] = []
    after = [(features.write_hook, lambda x, hook: kept.append(x))]
    with torch.no_grad(), forward_hooks(model, [*steering.hooks(), *after]):
        model(torch.tensor([[2, 5]]))
    unsteered = model.run_with_cache(torch.tensor([[2, 5]]))[1][features.write_hook]
    change = kept[0] - unsteered
    assert change[..., [i for i in range(64) if i != 3]].abs().max() == 0
    torch.testing.assert_close((kept[0] if mode == "clamp" else change)[0, :, 3], torch.tensor([5.0, 5.0]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("normalization", ["layer_norm", "expected_average_only_in", "constant_norm_rescale"])
def test_normalizing_saes(model: Any, mode: str, normalization: str) -> None:
    sae = sae_at(HOOK, normalize_activations=normalization)
    assert_like_slow(model, features_of(model, sae, [7, 2, 11]), mode)


@pytest.mark.parametrize("mode", MODES)
def test_transcoder_reads_and_writes_at_its_own_hooks(model: Any, mode: str) -> None:
    transcoder = transcoder_at("blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out")
    assert_like_slow(model, features_of(model, transcoder, [7, 2, 11]), mode)


@pytest.mark.parametrize("mode", MODES)
def test_sae_of_one_head_and_of_all_heads(model: Any, mode: str) -> None:
    one = sae_at("blocks.1.attn.hook_z", d_in=8, metadata={"hook_head_index": 2})
    assert_like_slow(model, features_of(model, one, [7, 2, 11]), mode)
    every = sae_at("blocks.1.attn.hook_z", reshape_activations="hook_z")
    assert_like_slow(model, features_of(model, every, [7, 2, 11]), mode)


@pytest.mark.parametrize("make", [gemma3_hf, gpt2_hf])
@pytest.mark.parametrize("mode", MODES)
def test_bridge_is_like_the_slow_loop(make: Callable[[], Any], mode: str) -> None:
    model = bridge(make())
    assert_like_slow(model, features_of(model, sae_at(HOOK), [7, 2, 11]), mode)


@pytest.mark.parametrize("sampling", SAMPLING)
def test_bridge_and_hooked_transformer_agree(sampling: str) -> None:
    hf = gemma3_hf()
    found = [
        generate(m, f, requests_for(f), reference_for(f), new_tokens=NEW, **SAMPLING[sampling])
        for m in (hooked_gemma3(hf), bridge(hf))
        for f in [features_of(m, sae_at(HOOK), [7, 2, 11])]
    ]
    assert found[0].tolist() == found[1].tolist()


@pytest.mark.parametrize("sampling", SAMPLING)
def test_factor_0_is_the_untouched_model(model: Any, features: Features, sampling: str) -> None:
    prompt, reference = (2, 8, 30, 21), reference_for(features)
    zero, none = ([Request(prompt, f, 0.0, 3) for _ in range(2)] for f in (1, None))
    found = [
        generate(model, features, r, reference, new_tokens=NEW, **SAMPLING[sampling]).tolist() for r in (zero, none)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2"])
@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("mode", ["add", "clamp"])
def test_a_text_does_not_depend_on_the_batch(architecture: str, mode: Any, sampling: str) -> None:
    model = hooked(architecture)
    features = features_of(model, sae_at(HOOK), [7, 2, 11])
    requests, reference = requests_for(features, count=15), reference_for(features)

    def run(chosen: list[Request], batch_size: int | None) -> list[list[int]]:
        return generate(
            model, features, chosen, reference, mode=mode, new_tokens=NEW, batch_size=batch_size, **SAMPLING[sampling]
        ).tolist()

    together = run(requests, None)
    assert run(requests[:4], 1) == together[:4]
    assert run(requests, 4) == together
    assert run(requests[::-1], None) == together[::-1]
    assert run(requests[3:8], 2) == together[3:8]


def test_streams_decide_what_is_drawn(model: Any, features: Features) -> None:
    requests = [Request((2, 9, 14), None, 0.0, stream) for stream in (1, 2, 1)]
    one, two, again = generate(model, features, requests, reference_for(features), temperature=1.0).tolist()
    assert one == again and one != two


def test_no_global_randomness(model: Any, features: Features) -> None:
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    generate(model, features, requests_for(features), reference_for(features), temperature=1.0)
    assert torch.equal(torch.get_rng_state(), state) and np.random.get_state()[1].tolist() == numpy_state


def test_sampled_tokens_have_the_model_s_probabilities(model: Any, features: Features) -> None:
    prompt, draws = (2, 9, 14), 4000
    requests = [Request(prompt, None, 0.0, stream) for stream in range(draws)]
    found = generate(model, features, requests, reference_for(features), new_tokens=1, temperature=1.0)
    with torch.no_grad():
        logits = model(torch.tensor([prompt]))[0, -1]
    logits[:3] = -torch.inf
    shares = np.bincount(found[:, 0], minlength=VOCABULARY) / draws
    assert np.abs(shares - logits.softmax(-1).numpy()).max() < 4 * 0.5 / draws**0.5


def test_special_tokens_are_never_generated() -> None:
    eager = hooked("gpt2", seed=3)
    with torch.no_grad():
        eager.unembed.b_U[:3] += 100.0
    f = features_of(eager, sae_at(HOOK), [7])
    for sampling in SAMPLING.values():
        found = generate(eager, f, requests_for(f), reference_for(f), **sampling)
        assert found.min() >= 3 and found.shape == (12, 30)


def test_a_token_added_as_special_is_never_generated() -> None:
    eager = hooked("gpt2", seed=3)
    eager.tokenizer.add_tokens(eager.tokenizer.convert_ids_to_tokens(9), special_tokens=True)
    assert 9 not in eager.tokenizer.all_special_ids and 9 in special_tokens(eager.tokenizer)
    with torch.no_grad():
        eager.unembed.b_U[9] += 100.0
    f = features_of(eager, sae_at(HOOK), [7])
    for sampling in SAMPLING.values():
        assert (generate(eager, f, requests_for(f), reference_for(f), **sampling) != 9).all()


def test_padding_is_never_steered(model: Any, features: Features) -> None:
    batch = [Request((2, 5, 6, 7), 0, 3.0, 0), Request((2,), 1, 3.0, 0)]
    steering = Steering(model, features, batch, reference_for(features), "add")
    steering.real = torch.tensor([[True] * 4, [False] * 3 + [True]])
    x = torch.zeros(2, 4, 32)
    x[1, 0] = torch.nan
    ((_, write),) = steering.hooks()
    after = write(x, hook=None)
    torch.testing.assert_close(after[1, :3], x[1, :3], equal_nan=True)
    assert (after[0] != 0).any(-1).all() and (after[1, 3] != 0).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", MODES)
def test_half_precision(dtype: torch.dtype, mode: Any) -> None:
    model = hooked("gemma2", dtype=dtype)
    f = features_of(model, sae_at(HOOK), [7, 2, 11])
    found = generate(model, f, requests_for(f), reference_for(f), mode=mode, new_tokens=NEW)
    expected = [slow(model, f, r, reference_for(f), mode) for r in requests_for(f)]
    # Rounding may turn a near tie, after which the texts part; most first tokens must agree.
    assert np.mean(found[:, 0] == np.array(expected)[:, 0]) > 0.7


def test_nothing_is_left_behind(model: Any, features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fade_lens.subject.features.Latents.encode", fail)  # inside a forward pass
        generate(model, features, requests_for(features), reference_for(features), mode="clamp")
    assert not any(point.has_hooks() for point in model.hook_dict.values())
    generate(model, features, requests_for(features), reference_for(features), mode="clamp")
    assert not any(point.has_hooks() for point in model.hook_dict.values())
    assert not any(tensor.is_inference() for tensor in [*model.parameters(), *model.buffers()])
    model(torch.tensor([[2, 3, 4]])).sum().backward()  # the model still trains
    model.zero_grad()


def test_a_user_s_own_hooks_go_on_acting(model: Any, features: Features) -> None:
    model.add_perma_hook("blocks.2.hook_resid_pre", lambda x, hook: x * 0.5)
    model.add_perma_hook("unembed.hook_out", lambda x, hook: x.roll(1, -1))
    try:
        assert_like_slow(model, features)
    finally:
        model.reset_hooks(including_permanent=True)


def test_out_of_memory_halves_the_batch(model: Any, features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    requests, reference = requests_for(features), reference_for(features)
    expected = generate(model, features, requests, reference, new_tokens=NEW)
    sizes: list[int] = []

    def continued(decoder: Any, steering: Any, batch: Any, *rest: Any) -> Any:
        sizes.append(len(batch))
        if len(batch) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return continue_batch(decoder, steering, batch, *rest)

    monkeypatch.setattr("fade_lens.generation.steering.continue_batch", continued)
    done: list[int] = []
    found = generate(model, features, requests, reference, new_tokens=NEW, progress=done.append)
    assert found.tolist() == expected.tolist()
    assert sizes == [12, 6, 3, 3, 3, 3] and done == [3, 3, 3, 3]

    decoder = decoder_for(model, features, requests)
    for tried in ([12, 6, 3, 3, 3, 3], [3, 3, 3, 3]):
        sizes.clear()
        generate(model, features, requests, reference, new_tokens=NEW, decoder=decoder)
        assert sizes == tried, "what was too much once is not tried again"


def test_progress_and_shape(model: Any, features: Features) -> None:
    done: list[int] = []
    found = generate(
        model, features, requests_for(features), reference_for(features), batch_size=5, progress=done.append
    )
    assert found.shape == (12, 30) and found.dtype == np.int64 and done == [5, 5, 2]
    assert generate(model, features, [], reference_for(features), new_tokens=4).shape == (0, 4)


def test_overflow_is_told(caplog: pytest.LogCaptureFixture) -> None:
    model = hooked("llama", dtype=torch.float16)
    f = features_of(model, sae_at(HOOK), [7])
    requests = [Request((2, 5), 0, 1e6, 0), Request((2, 5), None, 0.0, 0)]
    for sampling in SAMPLING.values():
        caplog.clear()
        found = generate(model, f, requests, torch.tensor([1e4]), new_tokens=NEW, **sampling)
        assert "1 of 2 continuations" in caplog.text
        assert (found[0] == -1).all() and found[1].min() >= 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": ()}, "empty prompt"),
        ({"prompt": (2, VOCABULARY)}, "vocabulary"),
        ({"prompt": (2,) * CONTEXT}, "context of 64"),
        ({"feature": 3}, "column 3"),
        ({"feature": -1}, "column -1"),
        ({"factor": float("nan")}, "factor"),
        ({"factor": float("inf")}, "factor"),
        ({"stream": -1}, "stream"),
    ],
)
def test_bad_requests(model: Any, features: Features, change: dict[str, Any], message: str) -> None:
    request = Request(**({"prompt": (2, 3), "feature": 0, "factor": 1.0, "stream": 0} | change))
    with pytest.raises(InputError, match=message):
        generate(model, features, [request], reference_for(features))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"new_tokens": 0}, "new_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"batch_size": 0}, "batch_size"),
        ({"reference": torch.ones(2)}, "reference has 2"),
        ({"reference": torch.tensor([1.0, torch.nan, 1.0])}, "column 1 is nan"),
    ],
)
def test_bad_settings(model: Any, features: Features, options: dict[str, Any], message: str) -> None:
    options = {"reference": reference_for(features)} | options
    with pytest.raises(InputError, match=message):
        generate(model, features, requests_for(features), **options)


def test_unknown_mode() -> None:
    with pytest.raises(InputError, match="did you mean 'clamp'"):
        check_settings("clam", 1, 0.0, None, None)


def test_attached_sae_is_refused() -> None:
    model = hooked("gpt2")
    f = features_of(model, sae_at(HOOK), [7])
    model.add_sae(sae_at(HOOK))
    with pytest.raises(InputError, match="reset_saes"):
        generate(model, f, requests_for(f), reference_for(f))


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["add", "clamp"])
def test_real_model(gemma: Any, demo_sae: Any, mode: Any) -> None:
    features = features_of(gemma, demo_sae, [98, 2970])
    long, short = (tuple(gemma.to_tokens(text)[0].tolist()) for text in ("The report says that", "In 1998"))
    requests = [Request(long, 0, 1.5, 0), Request(short, 1, 1.5, 0), Request(short, None, 1.5, 0)]
    reference = torch.tensor([600.0, 600.0])
    found = generate(gemma, features, requests, reference, mode=mode, new_tokens=3)
    special = set(gemma.tokenizer.all_special_ids)
    for row, request in zip(found.tolist(), requests, strict=True):
        expected = slow_real(gemma, features, request, reference, mode, special)
        assert row == expected


def slow_real(model: Any, features: Features, request: Request, reference: Any, mode: str, special: set[int]) -> Any:
    def steer(x: torch.Tensor, hook: Any) -> torch.Tensor:
        target = request.factor * reference[request.feature]
        change = target if mode == "add" else target - features.encode(x)[..., request.feature, None]
        return x + change * features.directions()[request.feature]

    tokens = list(request.prompt)
    with torch.no_grad(), forward_hooks(model, [(features.write_hook, steer)] if request.feature is not None else []):
        for _ in range(3):
            logits = model(torch.tensor([tokens]))[0, -1]
            logits[list(special)] = -torch.inf
            tokens.append(int(logits.argmax()))
    return tokens[len(request.prompt) :]
