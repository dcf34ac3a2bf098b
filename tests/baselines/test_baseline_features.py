"""Baseline features: what each is, that all scorers run on them, and scores minus theirs."""

import numpy as np
import pytest
import torch

from fade_lens import Corpus, Fade, InputError, Results, Subject
from fade_lens.baselines import features as features_module
from fade_lens.baselines.features import Permuted, TopNeurons, baseline
from fade_lens.baselines.kinds import BASELINES
from fade_lens.subject.features import features_of
from fade_lens.subject.hooks import read_hooks
from fade_lens.subject.settings import SubjectSettings
from tests.fake_judge import FakeJudge
from tests.planted import judge_of, natural_texts, planted_model, planted_sae, rule, writer
from tests.subject.test_activations import corpus_of
from tests.tiny import HOOK, tiny_model, tiny_sae

INDICES = [3, 17, 40, 8]
MLP = "blocks.0.mlp.hook_post"


@pytest.fixture(scope="module")
def server():
    with FakeJudge(rule=rule, writer=writer) as running:
        yield running


def subject_of(source=None, n=60, **options) -> Subject:
    subject = Subject(tiny_model(), source or tiny_sae("jumprelu"), corpus_of(n), INDICES, SubjectSettings(**options))
    subject.observe()
    return subject


@pytest.mark.parametrize("architecture", ["jumprelu", "topk", "transcoder"])
def test_a_random_latent_fires_on_as_many_tokens_as_one_of_the_run(architecture):
    source = tiny_sae(architecture) if architecture != "transcoder" else tiny_sae("transcoder", hook="blocks.0.hook_resid_mid", meta_hook_name_out="blocks.0.hook_mlp_out")  # fmt: skip
    subject = subject_of(source, outlier_factor=1.5)
    made = baseline("random", subject)
    assert made.paired and made.indices == (0, 1, 2, 3) and made.source.cfg.d_sae == 4
    own = Subject(subject.model, made.source, subject.corpus, made.indices, subject.settings)
    assert (
        own.features.read_hook == subject.features.read_hook and own.features.write_hook == subject.features.write_hook
    )
    assert subject.activations.n_outliers and (subject.activations.active > 0).any()
    assert own.activations.active.tolist() == subject.activations.active.tolist()
    torch.testing.assert_close(made.source.W_enc.norm(dim=0), torch.ones(4))
    torch.testing.assert_close(made.source.W_dec.norm(dim=1), torch.ones(4))
    assert torch.equal(made.source.W_dec, made.source.W_enc.T) == (architecture != "transcoder")
    again = baseline("random", subject).source
    other = baseline("random", subject_of(source, outlier_factor=1.5, seed=1)).source
    assert torch.equal(again.W_enc, made.source.W_enc) and not torch.equal(other.W_enc, made.source.W_enc)


def test_of_a_corpus_too_large_some_texts_tell_the_thresholds(monkeypatch):
    subject = subject_of(n=400)
    wanted = subject.activations.firing_rate
    monkeypatch.setattr(features_module, "HELD", 4 * int(subject.activations.active.max()) // 4)
    found = Subject(subject.model, baseline("random", subject).source, subject.corpus, range(4)).activations.firing_rate
    assert (found != wanted).any()
    np.testing.assert_allclose(found, wanted, atol=0.1)


def test_a_dead_latents_partner_is_dead():
    sae = tiny_sae("jumprelu")
    with torch.no_grad():
        sae.threshold[17] = 1e9
    own = subject_of(sae)
    made = baseline("random", own)
    found = Subject(own.model, made.source, own.corpus, made.indices).activations.active
    assert found[1] == 0 and found.tolist() == own.activations.active.tolist()


def test_the_strongest_neurons_of_a_token_alone_fire():
    model = tiny_model()
    subject = Subject(model, TopNeurons(model, MLP, INDICES, 5), corpus_of(6), INDICES)
    hidden = read_hooks(model, torch.tensor(subject.tokens[0][None]), [MLP])[MLP]
    found = subject.features.select(range(128)).encode(hidden)[0].numpy()
    for row, dense in zip(found, hidden[0].detach().numpy(), strict=True):
        strongest = sorted(range(128), key=lambda i: -abs(dense[i]))[:5]
        assert sorted(np.flatnonzero(row)) == sorted(strongest)
        assert np.array_equal(row[strongest], dense[strongest])
    plain = features_of(model, MLP, INDICES)
    assert subject.features.identity() != plain.identity() and not subject.features.dense and plain.dense
    torch.testing.assert_close(subject.features.directions(), plain.directions())
    assert subject.precision.absolute.max() < 0.1, "a neuron that another one pushes aside is no rounding"


@pytest.mark.parametrize("architecture", ["standard", "topk"])
def test_permuted_latents_fire_as_before_and_write_what_another_one_does(architecture):
    options = {"rescale_acts_by_decoder_norm": True} if architecture == "topk" else {}
    subject = subject_of(tiny_sae(architecture, **options))
    source = baseline("permuted", subject).source
    own = Subject(subject.model, source, subject.corpus, INDICES)
    assert isinstance(source, Permuted) and own.activations.values.tolist() == subject.activations.values.tolist()
    every = features_of(subject.model, subject.source, range(64)).directions()
    written = source.select(range(64)).directions()
    which = (written[:, None] == every).all(-1).float().argmax(-1).tolist()
    assert sorted(which) == list(range(64)) and all(a != b for a, b in enumerate(which))
    torch.testing.assert_close(own.features.directions(), written[INDICES])
    torch.testing.assert_close(source.decoder(slice(0, 64))[3], subject.source.W_dec[which[3]])
    assert source.identity() != subject.features.identity()


@pytest.mark.parametrize("kind", ["neurons", "residual"])
def test_as_many_neurons_are_drawn_that_fire_as_often(kind):
    subject = subject_of(tiny_sae("jumprelu", meta_prepend_bos=False))
    made = baseline(kind, subject)
    assert len(made.indices) == 4 and not made.paired and made.indices == baseline(kind, subject).indices
    own = Subject(subject.model, made.source, subject.corpus, made.indices, SubjectSettings(context=32))
    assert own.features.read_hook == (MLP if kind == "neurons" else HOOK)
    assert own.tokens is subject.tokens, "the same tokens are read"
    rates = subject.activations.firing_rate
    assert own.activations.firing_rate.min() >= rates[rates > 0].min()


def test_what_cannot_stand_beside_a_run_is_told_before_anything_is_asked(server):
    with pytest.raises(
        InputError, match="baselines holds 'randm'; give some of 'random', 'permuted', 'neurons', 'residual'"
    ):
        baseline("randm", subject_of())
    with pytest.raises(InputError, match="which is made of an SAE"):
        baseline("random", subject_of(MLP))
    with pytest.raises(InputError, match="is in no layer of the model"):
        baseline("neurons", subject_of(tiny_sae(hook="hook_embed")))
    model, texts = tiny_model(), corpus_of(30)
    fade, asked = Fade(model, tiny_sae(), corpus=texts, judge=judge_of(server)), server.requests
    for call in (fade.evaluate, fade.estimate):
        with pytest.raises(
            InputError, match=r"holds 'neurons', whose features have no description: give explainer='one-shot'"
        ):
            call({3: "cats"}, scorers=["detection"], baselines=["neurons"])
    given = Fade(model, tiny_sae(), corpus=texts, judge=judge_of(server), activations=lambda index: np.zeros(30))
    with pytest.raises(InputError, match="holds 'random', whose latents fire on as many tokens"):
        given.evaluate([3], scorers=["detection"], explainer="tfidf", baselines=["random"])
    assert server.requests == asked


def test_a_run_beside_its_baselines(server, tmp_path):
    """All of them, explained and scored like the run, kept in its folder, saved with it, and subtracted in its summary."""
    fade = Fade(
        planted_model(),
        planted_sae(),
        corpus=Corpus.from_texts(natural_texts(300)),
        judge=judge_of(server),
        least_texts=1,
    )
    options = {"scorers": ["detection"], "explainer": "tfidf", "baselines": BASELINES}
    estimate = fade.estimate([0, 1, 2], **options)
    alone = fade.estimate([0, 1, 2], **(options | {"baselines": ()}))
    assert estimate.calls == 5 * alone.calls
    results = fade.evaluate([0, 1, 2], store=tmp_path, progress=False, **options)
    assert server.requests <= estimate.calls
    assert list(results.baselines) == list(BASELINES) and all(len(found) for found in results.baselines.values())
    plain = fade.evaluate([0, 1, 2], progress=False, **(options | {"baselines": ()}))
    assert plain.items == results.items, "what stands beside a run changes nothing in it"
    named = [r.description.index for r in results]
    assert results.baselines["permuted"].beside == tuple((i, i) for i in sorted(named))
    assert [d.description for d in results.baselines["permuted"]] == [d.description for d in results]
    assert dict(results.baselines["random"].beside) == dict(enumerate(sorted(named)))
    assert all(found.run.held_out == results.run.held_out for found in results.baselines.values())
    assert {found.run.corpus for found in results.baselines.values()} == {results.run.corpus}

    summary = results.summary()
    own = summary[summary["null"].isna() & summary["baseline"].isna()].set_index("metric")
    rows = summary[summary["baseline"].notna()].set_index(["baseline", "metric"])
    pairs = {i: r.metric("detection").value for i, r in zip(named, results, strict=True)}
    partners = {
        dict(results.baselines["random"].beside)[r.description.index]: r.metric("detection").value
        for r in results.baselines["random"]
    }
    both = [i for i in pairs if partners.get(i) is not None and pairs[i] is not None]
    assert rows.loc[("random", "detection"), "mean"] == pytest.approx(np.mean([pairs[i] - partners[i] for i in both]))
    assert rows.loc[("random", "detection"), "n"] == len(both)
    assert rows.loc[("permuted", "detection"), "mean"] == 0, "what they fire on is the same"
    others = [r.metric("detection").value for r in results.baselines["neurons"]]
    expected = own.loc["detection", "mean"] - np.mean([value for value in others if value is not None])
    assert rows.loc[("neurons", "detection"), "mean"] == pytest.approx(expected)

    before = server.requests
    again = fade.evaluate([0, 1, 2], store=tmp_path, progress=False, **options)
    assert server.requests == before, "a run that is done asks nothing again"
    assert again.summary().equals(summary)
    assert {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("run.sqlite")} == {
        ".",
        *(f"baselines/{kind}" for kind in BASELINES),
    }
    loaded = Results.load(results.save(tmp_path / "results.sqlite"))
    assert loaded.summary().equals(summary) and loaded.baselines["random"].beside == results.baselines["random"].beside
    from fade_lens.report.page import page

    assert "minus baseline: random" in page(loaded)


def test_a_baseline_of_which_nothing_can_be_described_leaves_the_run_as_it_is(server, monkeypatch):
    model, sae = planted_model(), planted_sae()
    fade = Fade(model, sae, corpus=natural_texts(120), judge=judge_of(server), least_texts=1)
    explained = fade.explain([0, 1], explainer="tfidf", progress=False)
    with torch.no_grad():  # no neuron fires
        model.blocks[0].mlp.W_in.zero_()
        model.blocks[0].mlp.b_in.zero_()
    results = fade.evaluate(explained, scorers=["detection"], baselines=["neurons"], progress=False)
    assert len(results) == 2 and len(results.baselines["neurons"]) == 0
    assert [row.reason.code for row in results.baselines["neurons"].without] == ["silent"] * 2
    row = results.summary().set_index("baseline").loc["neurons"]
    assert np.isnan(row["mean"]) and row["reasons"] == "no feature of the baseline has a value"
