"""A run's identity changes with every bit and every setting that may change a number, and with nothing else."""

import copy
import json
import math
import sys

import pytest
import torch
from sae_lens.registry import SAE_CLASS_REGISTRY

from fade_lens._util.errors import InputError
from fade_lens.cli import main
from fade_lens.runs.store import FILE
from fade_lens.subject import identity as identity_module
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import read_hooks
from fade_lens.subject.identity import digest, model_identity, sae_identity, tokenizer_hash
from tests import architectures
from tests.cli.test_commands import parts  # noqa: F401  a fixture
from tests.planted import planted_sae
from tests.tiny import HOOK, tiny_bridge, tiny_model, tiny_sae, word_tokenizer

TRAINED = [name for name in SAE_CLASS_REGISTRY if "batchtopk" not in name]
# Which hooks fire, names, places and how weights were first made.
DECIDES_NOTHING = {
    "device", "n_devices", "seed", "init_mode", "init_weights", "initializer_range", "n_params", "model_name", "tokenizer_name",
    "from_checkpoint", "checkpoint_index", "checkpoint_label_type", "checkpoint_value", "trust_remote_code", "use_attn_result",
    "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in", "use_hook_tokens", "transformers_version", "use_cache", "metadata",
    "output_attentions", "output_hidden_states", "return_dict", "name_or_path", "architectures", "id2label", "label2id",
}  # fmt: skip


def models(tmp_path):
    yield "hooked", tiny_model()
    yield (
        "rotary",
        tiny_model(positional_embedding_type="rotary", rotary_dim=8, normalization_type="RMS", gated_mlp=True),
    )
    yield "bridge", tiny_bridge(tmp_path)
    yield "gemma 3 bridge", architectures.bridge(architectures.gemma3_hf())


def flipped(tensor):
    """The tensor with the last bit of one element, in its middle, turned."""
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).clone()
    raw[tensor.element_size() * (tensor.numel() // 2)] ^= 1
    return raw.view(tensor.dtype).reshape(tensor.shape)


def changes(module, identify):
    """Names of the tensors of which one bit was turned, and of those among them that the identity did not tell."""
    before, names, missed = identify(module), [], []
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.numel():
            was, tensor.data = tensor.data, flipped(tensor.data)
            names.append(name)
            if identify(module) == before:
                missed.append(name)
            tensor.data = was
    assert identify(module) == before
    return names, missed


def other(value):
    """Another value of the same kind, as near as there is one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return math.nextafter(float(value), math.inf)
    return f"{value}x" if isinstance(value, str) else 1


def settings_missed(config, identify):
    """Settings whose change the identity did not tell, and what changed it though it decides nothing."""
    before, missed, told = identify(), [], []
    scalars = {k: v for k, v in vars(config).items() if v is None or isinstance(v, bool | int | float | str)}
    for name, value in scalars.items():
        if name.startswith("_"):
            continue
        try:
            object.__setattr__(config, name, other(value))
            if identify() == before and name not in DECIDES_NOTHING:
                missed.append(name)
            if identify() != before and name in DECIDES_NOTHING:
                told.append(name)
        finally:
            object.__setattr__(config, name, value)
    assert len(scalars) > 5 and identify() == before
    return missed, told


@pytest.mark.parametrize("architecture", TRAINED)
def test_each_bit_and_setting_of_an_sae_is_told(architecture):
    sae = tiny_sae(architecture)
    names, missed = changes(sae, sae_identity)
    assert {"W_dec", "b_dec"} <= set(names) and not missed
    assert settings_missed(sae.cfg, lambda: sae_identity(sae)) == ([], [])


def test_each_bit_of_a_model_is_told(tmp_path):
    for kind, model in models(tmp_path):
        names, missed = changes(model, model_identity)
        assert len(names) > 25 and not missed, kind


def test_each_setting_of_a_model_is_told(tmp_path, monkeypatch):
    for slow in ("weights_hash", "modules_hash", "tokenizer_hash"):
        monkeypatch.setattr(identity_module, slow, lambda one: "the same")
    for kind, model in models(tmp_path):
        assert settings_missed(model.cfg, lambda model=model: model_identity(model)) == ([], []), kind
        if hasattr(model, "original_model"):
            config = model.original_model.config
            assert settings_missed(config, lambda model=model: model_identity(model)) == ([], []), kind


def test_what_the_modules_themselves_keep_is_told(tmp_path):
    """A config is read once; what computes are the modules made of it."""
    (_, hooked), _, (_, bridge), (_, gemma) = models(tmp_path)
    temporal = tiny_sae("temporal")
    for root, part, name, value in (
        (hooked, hooked.blocks[1].mlp, "act_fn", torch.relu),
        (hooked, hooked.ln_final, "eps", math.nextafter(1e-5, 1)),
        (hooked, hooked.blocks[0].attn, "attn_scale", 2.0),
        (
            bridge,
            bridge.original_model.transformer.h[1].original_component.mlp.original_component,
            "act",
            torch.nn.ReLU(),
        ),
        (gemma, gemma.blocks[0].original_component.self_attn.original_component, "sliding_window", 5),
        (temporal, temporal, "lam", 0.1),
        (temporal, temporal, "dtype", torch.float64),
    ):
        identify = sae_identity if root is temporal else model_identity
        before, was = identify(root), getattr(part, name)
        setattr(part, name, value)
        assert identify(root) != before, name
        setattr(part, name, was)
        assert identify(root) == before


def test_a_hook_of_torch_on_a_module_is_told(tmp_path):
    for kind, model in models(tmp_path):
        before = model_identity(model)
        for part in (model.blocks[0], model.blocks[1].mlp):
            for register in (part.register_forward_pre_hook, part.register_forward_hook):
                with register(lambda *_: None):
                    assert model_identity(model) != before, kind
        assert model_identity(model) == before


def test_what_decides_no_number_is_not_told(tmp_path):
    sae = tiny_sae("standard", reshape_activations="hook_z", hook="blocks.0.attn.hook_z")
    before = sae_identity(sae)
    sae.cfg.metadata.release, sae.cfg.metadata.neuronpedia_id, sae.cfg.metadata.model_name = "r", "n", "m"
    sae.cfg.device = "cuda:0"
    sae(torch.randn(1, 3, 4, 8))  # it notes the size of a head
    sae.turn_off_forward_pass_hook_z_reshaping()
    sae.W_enc.data = sae.W_enc.data.T.contiguous().T  # other strides
    assert not sae.W_enc.is_contiguous() and sae_identity(sae) == before
    for kind, model in models(tmp_path):
        features = features_of(model, HOOK, [1, 2])
        before = model_identity(model)
        assert features.identity() == features.select([2]).identity()
        model.cfg.model_name = "another"
        with model.hooks([(features.read_hook, lambda x, hook: x)]):
            assert model_identity(model) != before, kind
        read_hooks(model, torch.tensor([[1, 2, 3]]), [features.read_hook])
        model.tokenizer(["a", "a b"], padding=True, truncation=True, max_length=2, return_tensors="pt")
        model.train()
        assert model_identity(model) == before, kind


def test_alibi_and_other_tables_made_on_the_way_are_not_told():
    model = architectures.hooked("alibi")
    before = model_identity(model)
    model(torch.tensor([[1, 2, 3]]))
    assert model_identity(model) == before


def test_tied_weights_count_as_two_that_are_equal():
    tied = tiny_sae("standard")
    apart = copy.deepcopy(tied)
    tied.b_dec = torch.nn.Parameter(torch.zeros(32))
    tied.b_other = tied.b_dec
    apart.b_dec = torch.nn.Parameter(torch.zeros(32))
    apart.b_other = torch.nn.Parameter(torch.zeros(32))
    assert sae_identity(tied) == sae_identity(apart)


def test_bytes_are_bytes_whatever_the_dtype(monkeypatch):
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
    kinds += [torch.complex64, torch.bool, torch.uint8, torch.int8, torch.int64]
    tensors = [torch.arange(2, 26).to(kind).reshape(4, 6) for kind in kinds]
    tensors += [
        torch.tensor(1.0),
        torch.tensor([1.0]),
        torch.zeros(0, 3),
        torch.zeros(3, 0),
        torch.zeros(2, 3),
        -torch.zeros(2, 3),
    ]
    tensors += [
        torch.tensor([0x7FC00000 + i], dtype=torch.int32).view(torch.float32) for i in (0, 1)
    ]  # two kinds of NaN
    found = [digest(tensor) for tensor in tensors]
    assert len(set(found)) == len(tensors)
    assert all(digest(flipped(t)) != one for t, one in zip(tensors, found, strict=True) if t.numel())
    monkeypatch.setattr(identity_module, "CHUNK", 16)
    assert [digest(tensor) for tensor in tensors] == found
    assert [digest(t.T.contiguous().T) for t in tensors[:4]] == found[:4]
    assert digest(tensors[6].conj().resolve_conj().conj()) == found[6]


def test_weights_that_are_not_there_are_one_sentence():
    with pytest.raises(InputError, match=r"W_dec of StandardSAE has no values \(meta device\); load its weights"):
        sae = tiny_sae()
        sae.W_dec = torch.nn.Parameter(sae.W_dec.to("meta"))
        sae_identity(sae)


def test_weights_moved_out_of_memory_are_read_back():
    accelerate = pytest.importorskip("accelerate", reason="moving weights away is accelerate's")
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
    whole = identity_module.weights_hash(module)
    accelerate.cpu_offload(module, execution_device="cpu")
    assert next(module.parameters()).is_meta
    assert identity_module.weights_hash(module) == whole and next(module.parameters()).is_meta


def test_a_tokenizer_is_known_by_its_rules_and_special_tokens():
    before = tokenizer_hash(word_tokenizer())
    more, special, cased = word_tokenizer(), word_tokenizer(), word_tokenizer()
    more.add_tokens(["word"])
    special.add_special_tokens({"additional_special_tokens": ["cat"]})
    from tokenizers import normalizers

    cased.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert len({before, *map(tokenizer_hash, (more, special, cased))}) == 4
    named = word_tokenizer()
    named.name_or_path, named.padding_side = "elsewhere", "left"
    assert tokenizer_hash(named) == before


def test_a_tokenizer_that_is_as_before_is_not_parsed_again(monkeypatch):
    """A vocabulary of a quarter of a million takes three seconds, and a notebook asks ten times."""
    tokenizer, read, loads = word_tokenizer(), [], json.loads
    tokenizer.add_tokens(["once"])
    monkeypatch.setattr(identity_module.json, "loads", lambda text: read.append(text) or loads(text))
    assert len({tokenizer_hash(tokenizer) for _ in range(3)}) == 1 and len(read) == 1
    tokenizer.add_tokens(["twice"])
    tokenizer_hash(tokenizer)
    assert len(read) == 2


def test_another_sae_is_refused_and_the_first_ones_run_is_kept(parts, monkeypatch, capsys):  # noqa: F811
    """Noise on the encoder alone, into the folder of the unharmed one."""
    folder, arguments, _ = parts

    def run():
        monkeypatch.setattr(sys, "argv", ["fade-lens", *arguments, "--quiet"])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code

    assert not run()
    files = {
        path: path.read_bytes()
        for path in (folder / "run").iterdir()
        if path.name.startswith(("report", "results", FILE))
    }
    assert len(files) >= 3
    sae = planted_sae()
    sae.W_enc.data += 0.01 * torch.randn_like(sae.W_enc)
    sae.save_model(folder / "sae")
    assert run() == 4
    said = " ".join(capsys.readouterr().err.split())
    assert "was made with other settings: features.weights was" in said and "another folder" in said
    assert {path: path.read_bytes() for path in files} == files
