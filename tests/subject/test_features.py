"""Features against sae_lens itself: every registered architecture, normalization and hook shape."""

import inspect
import logging

import pytest
import torch
from sae_lens.registry import SAE_CLASS_REGISTRY
from transformer_lens import HookedTransformer, HookedTransformerConfig

from fade_lens._util.errors import InputError
from fade_lens.subject.features import COLUMNWISE, features_of
from fade_lens.subject.hooks import read_hooks, resolve_hook
from tests.tiny import D_MODEL, HOOK, tiny_bridge, tiny_model, tiny_sae

INDICES = [5, 60, 3]
NORMALIZATIONS = ["none", "layer_norm", "constant_norm_rescale", "expected_average_only_in"]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def hidden(model):
    tokens = torch.randint(4, 30, (3, 9), generator=torch.Generator().manual_seed(0))
    return read_hooks(model, tokens, [HOOK])[HOOK].detach()


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("architecture", sorted(SAE_CLASS_REGISTRY))
def test_encode_equals_the_sae(model, hidden, architecture, normalization):
    sae = tiny_sae(architecture, normalize_activations=normalization)
    got = features_of(model, sae, INDICES).encode(hidden)
    want = sae.encode(hidden)[..., INDICES]
    torch.testing.assert_close(got, want.detach(), rtol=1e-5, atol=1e-5)
    assert (want != 0).any(), "the comparison must see active latents"


@pytest.mark.parametrize("architecture", sorted(COLUMNWISE))
def test_only_the_columns_asked_for_are_held(model, architecture):
    encoder = features_of(model, tiny_sae(architecture), INDICES).encoder
    assert encoder.W_enc.shape == (D_MODEL, len(INDICES))


def test_every_architecture_of_sae_lens_is_known():
    """A new architecture falls back to the full encoder; this says when there is one to look at."""
    assert set(SAE_CLASS_REGISTRY) == COLUMNWISE | {"topk", "abstopk", "matching_pursuit", "temporal"}


def test_the_users_sae_is_left_as_it_was(model, hidden):
    sae = tiny_sae("gated", normalize_activations="layer_norm")
    before = {k: v.clone() for k, v in sae.state_dict().items()}
    features_of(model, sae, INDICES).encode(hidden)
    assert sae.W_enc.shape == (D_MODEL, 64)
    assert all(torch.equal(v, before[k]) for k, v in sae.state_dict().items())


def test_batchtopk_in_training_form_is_refused(model):
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

    sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=D_MODEL, d_sae=64, k=4))
    sae.cfg.metadata.hook_name = HOOK
    with pytest.raises(InputError, match="save_inference_model"):
        features_of(model, sae, [0])


@pytest.mark.parametrize("training", ["BatchTopK", "MatryoshkaBatchTopK"])
def test_batch_architectures_as_they_are_saved(model, hidden, tmp_path, training):
    import sae_lens

    options = {"matryoshka_widths": [16, 64]} if training.startswith("M") else {}
    config = getattr(sae_lens, f"{training}TrainingSAEConfig")(d_in=D_MODEL, d_sae=64, k=4, **options)
    trained = getattr(sae_lens, f"{training}TrainingSAE")(config)
    trained.cfg.metadata.hook_name = HOOK
    trained.topk_threshold.fill_(0.3)
    trained.save_inference_model(tmp_path)
    sae = sae_lens.SAE.load_from_disk(tmp_path)
    got = features_of(model, sae, INDICES).encode(hidden)
    torch.testing.assert_close(got, sae.encode(hidden)[..., INDICES].detach())


def test_hook_z_is_flattened_heads_first(model):
    hook = "blocks.1.attn.hook_z"
    tokens = torch.randint(4, 30, (2, 6), generator=torch.Generator().manual_seed(1))
    z = read_hooks(model, tokens, [hook])[hook].detach()
    assert z.ndim == 4
    sae = tiny_sae("standard", hook=hook, reshape_activations="hook_z")
    torch.testing.assert_close(features_of(model, sae, INDICES).encode(z), sae.encode(z)[..., INDICES].detach())
    neurons = features_of(model, hook, [9])  # head 1, dimension 1 of 8
    torch.testing.assert_close(neurons.encode(z)[..., 0], z[:, :, 1, 1])


def test_an_sae_of_one_head_reads_that_head(model):
    hook = "blocks.1.attn.hook_q"
    tokens = torch.randint(4, 30, (2, 6), generator=torch.Generator().manual_seed(1))
    q = read_hooks(model, tokens, [hook])[hook].detach()
    sae = tiny_sae("standard", d_in=8, hook=hook, meta_hook_head_index=2)
    torch.testing.assert_close(
        features_of(model, sae, INDICES).encode(q), sae.encode(q[:, :, 2])[..., INDICES].detach()
    )


def test_transcoders_read_at_one_hook_and_write_at_another(model):
    sae = tiny_sae("skip_transcoder", hook="blocks.0.hook_mlp_in", meta_hook_name_out="blocks.0.hook_mlp_out")
    features = features_of(model, sae, INDICES)
    assert (features.read_hook, features.write_hook) == ("blocks.0.hook_mlp_in", "blocks.0.hook_mlp_out")
    torch.testing.assert_close(features.directions(), sae.W_dec.detach()[INDICES])


def test_a_hook_that_does_not_fire_says_so(model):
    with pytest.raises(InputError, match="did not fire"):
        features_of(model, "unembed.hook_out", [0])


@pytest.mark.parametrize("architecture", ["standard", "topk"])
@pytest.mark.parametrize("normalization", ["none", "layer_norm", "constant_norm_rescale"])
def test_direction_times_scale_is_what_a_unit_of_activation_decodes_to(model, hidden, architecture, normalization):
    """Steering's step must be the SAE's own: decode(one unit more of the latent) − decode(as it is)."""
    options = {"rescale_acts_by_decoder_norm": True} if architecture == "topk" else {}
    sae = tiny_sae(architecture, normalize_activations=normalization, **options)
    features = features_of(model, sae, INDICES)
    activations = sae.encode(hidden)
    unit = activations.clone()
    unit[..., INDICES[1]] += 1.0
    sae.encode(hidden)  # the SAE keeps the scale of its last input for decoding, and uses it up
    decoded = sae.decode(activations)
    sae.encode(hidden)
    want = sae.decode(unit) - decoded
    got = features.write_scale(hidden) * features.directions()[1]
    torch.testing.assert_close(got.expand_as(want), want.detach(), rtol=1e-4, atol=1e-4)


def test_neurons_are_the_hooks_own_dimensions(model):
    hook = "blocks.1.mlp.hook_post"
    features = features_of(model, hook, [7, 2])
    tokens = torch.randint(4, 30, (2, 6), generator=torch.Generator().manual_seed(1))
    post = read_hooks(model, tokens, [hook])[hook].detach()
    torch.testing.assert_close(features.encode(post), post[..., [7, 2]])
    assert features.n_features == 4 * D_MODEL
    assert features.directions()[0].nonzero().item() == 7
    assert features.residual_hook == "blocks.1.hook_resid_pre"


def test_half_precision_is_encoded_to_float32():
    model = tiny_model(dtype=torch.bfloat16)
    features = features_of(model, tiny_sae("jumprelu"), INDICES)
    tokens = torch.randint(4, 30, (2, 6), generator=torch.Generator().manual_seed(1))
    assert features.encode(read_hooks(model, tokens, [HOOK])[HOOK]).dtype == torch.float32


def test_a_plain_hooked_transformer_works():
    config = HookedTransformerConfig(
        n_layers=1, d_model=D_MODEL, n_ctx=16, d_head=8, n_heads=4, d_vocab=40, act_fn="relu", device="cpu", seed=0
    )
    assert features_of(HookedTransformer(config), HOOK, [0, 1]).n_features == D_MODEL


def test_a_bridge_resolves_its_aliases(tmp_path):
    bridge = tiny_bridge(tmp_path)
    resolved = resolve_hook(bridge, HOOK)
    assert resolved == "blocks.0.hook_out"
    tokens = torch.randint(4, 30, (2, 6), generator=torch.Generator().manual_seed(1))
    hidden = read_hooks(bridge, tokens, [resolved])[resolved].detach()
    want = bridge.original_model(tokens, output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(hidden, want.detach(), rtol=1e-4, atol=1e-4)
    sae = tiny_sae("jumprelu")
    got = features_of(bridge, sae, INDICES).encode(hidden)
    torch.testing.assert_close(got, sae.encode(hidden)[..., INDICES].detach(), rtol=1e-4, atol=1e-5)


def test_padding_on_the_right_changes_no_real_position(model):
    tokens = torch.randint(4, 30, (1, 6), generator=torch.Generator().manual_seed(1))
    padded = torch.cat([tokens, torch.zeros(1, 5, dtype=torch.long)], dim=1)
    short, long = (read_hooks(model, t, [HOOK])[HOOK] for t in (tokens, padded))
    torch.testing.assert_close(long[:, :6], short, rtol=1e-5, atol=1e-5)


def test_unknown_hooks_are_named_with_their_neighbours(model):
    with pytest.raises(InputError, match=r"'blocks.0.hook_resid_pots'.*did you mean.*'blocks.0.hook_resid_post'"):
        features_of(model, "blocks.0.hook_resid_pots", [0])


@pytest.mark.parametrize(
    "indices, message", [([64], "out of range"), ([-1], "out of range"), ([1, 1], "twice"), ([], "at least one")]
)
def test_indices_that_cannot_be(model, indices, message):
    with pytest.raises(InputError, match=message):
        features_of(model, tiny_sae(), indices)


def test_an_sae_that_does_not_fit(model):
    with pytest.raises(InputError, match="d_in is 16"):
        features_of(model, tiny_sae(d_in=16), [0])
    with pytest.raises(InputError, match="did you mean"):
        features_of(model, tiny_sae(hook="blocks.9.hook_resid_post"), [0])
    with pytest.raises(InputError, match="no hook_name"):
        features_of(model, tiny_sae(meta_hook_name=None), [0])


def test_attention_patterns_are_no_features(model):
    with pytest.raises(InputError, match=r"need \[text, pos"):
        features_of(model, "blocks.0.attn.hook_pattern", [0])


def test_an_sae_of_another_model_is_warned_about(model, caplog):
    with caplog.at_level(logging.WARNING):
        features_of(model, tiny_sae(meta_model_name="gpt2-small"), [0])
    assert "gpt2-small" in caplog.text


def test_a_model_with_saes_attached_is_refused(model):
    sae = tiny_sae()
    model.add_sae(sae)
    try:
        with pytest.raises(InputError, match="reset_saes"):
            features_of(model, sae, [0])
    finally:
        model.reset_saes()


def test_what_is_no_source(model):
    with pytest.raises(InputError, match="SAE object or a hook name"):
        inspect.unwrap(features_of)(model, 3, [0])  # without the shape checks of the test run


def test_select_and_identity(model):
    features = features_of(model, tiny_sae(), [1, 2])
    assert features.select([9]).indices == (9,)
    assert features.identity() == features.select([9]).identity()
    assert features.identity() != features_of(model, tiny_sae(seed=1), [1]).identity()
