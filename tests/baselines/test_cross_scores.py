"""Cross matrices against one pair at a time, p-values under the null, swaps on planted features, saving and loading."""

import numpy as np
import pytest

from fade_lens import Fade, Results
from fade_lens._util.errors import InputError
from fade_lens._util.reasons import Reason
from fade_lens.baselines.cross_scores import CrossScores, RatedMass, clarity_matrix, ranked_rows, rated_matrices
from fade_lens.baselines.permutation import LEAST, assignment, benjamini_hochberg, compare, fit_statistic, percentile
from fade_lens.data.descriptions import Description
from fade_lens.metrics.fade import clarity
from fade_lens.metrics.metric import Metric
from fade_lens.metrics.ranking import average_precision, gini
from fade_lens.scorers.evidence import RatedEvidence, RatedText
from tests.fake_judge import FakeJudge
from tests.planted import CLASSES, TRUE, judge_of, natural_texts, planted_model
from tests.planted import rule as class_rule
from tests.planted import writer as class_writer
from tests.tiny import HOOK, OTHERS, tiny_sae

WORDS = {4 + place: f'the word "{word}"' for place, word in enumerate(OTHERS[5:14])}
DESCRIPTIONS = {**TRUE, **WORDS}
SMALL = {"prompts": 4, "prompt_tokens": 4, "new_tokens": 4, "rated_texts": 120, "synthetic_texts": 20, "gate": 2.0}
MODEL, TEXTS = planted_model(), natural_texts()


def sae_of_words():
    """Latents 0, 1, 2 of the planted classes, 4 to 12 of single words, 3 dead, the rest random."""
    sae = tiny_sae("jumprelu", d_sae=24, hook=HOOK)
    import torch

    with torch.no_grad():
        sae.b_dec.zero_()
        sae.b_enc.zero_()
        sae.threshold.fill_(1.0)
        sae.W_enc[:, 3] = 0.0
        for latent, direction in [(i, i) for i in CLASSES] + [(i, 8 + 5 + i - 4) for i in WORDS]:
            for weights in (sae.W_enc.T, sae.W_dec):
                weights[latent].zero_()
                weights[latent, direction] = 1.0
    return sae


SAE = sae_of_words()


def rule(concept: str, text: str) -> int:
    if concept in WORDS.values():
        return 2 if concept.split('"')[1] in text.split() else 0
    return class_rule(concept, text)


def writer(concept: str, i: int) -> list[str]:
    if concept in WORDS.values():
        random = np.random.default_rng(i)
        common = [w for w in OTHERS if f'"{w}"' not in concept]
        return [" ".join([*random.choice(common, 3), concept.split('"')[1], "."]) for _ in range(10)]
    return class_writer(concept, i)


@pytest.fixture(scope="module")
def server():
    with FakeJudge(rule=rule, writer=writer) as running:
        yield running


def run(server, descriptions, **options) -> Results:
    settings = SMALL | options.pop("settings", {})
    fade = Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **settings)
    return fade.evaluate(descriptions, progress=False, **options)


# --- the matrices -----------------------------------------------------------------------------------------------------------


def made_up(seed: int = 0, n_features: int = 5, n_descriptions: int = 7):
    """Activations with many ties and some texts without a counted position, ratings, inclusion probabilities."""
    rng = np.random.default_rng(seed)
    natural = np.maximum(rng.normal(-1, 1, (90, n_features)).round(1), 0).astype(np.float32)
    synthetic = np.maximum(rng.normal(0, 1, (60, n_features)).round(1), 0).astype(np.float32)
    natural[3], synthetic[5] = np.nan, np.nan
    owner = rng.integers(0, n_descriptions - 1, 60)  # nothing is written for the last
    rated = []
    for place in range(n_descriptions):
        chosen = rng.choice(90, 30, replace=False)
        ratings = rng.choice([0, 1, 2, None], 30, p=[0.6, 0.1, 0.2, 0.1]) if place else np.zeros(30, dtype=int)
        rated.append(
            evidence([(int(n), rng.choice([1.0, 0.5, 0.2]), r) for n, r in zip(chosen, ratings.tolist(), strict=True)])
        )
    return natural, synthetic, owner, rated


def evidence(rows) -> RatedEvidence:
    undefined = Metric(None, Reason("undefined", "not computed here"))
    return RatedEvidence(undefined, undefined, tuple(RatedText(n, "", 0.0, float(p), r) for n, p, r in rows))


def test_matrices_equal_the_metrics_pair_by_pair():
    natural, synthetic, owner, rated = made_up()
    clear = clarity_matrix(natural, synthetic, owner, len(rated))
    responsive, pure = rated_matrices(natural, RatedMass.of(rated))
    assert clear.dtype == responsive.dtype == pure.dtype == np.float32
    for f in range(natural.shape[1]):
        column = natural[:, f].astype(np.float64)
        for g, found in enumerate(rated):
            value = clarity(synthetic[owner == g, f].astype(np.float64), column).value
            assert (value is None and np.isnan(clear[f, g])) or clear[f, g] == pytest.approx(value, abs=1e-6)
            kept = [t for t in found.texts if t.rating in (0, 2) and not np.isnan(column[t.number])]
            values = np.array([column[t.number] for t in kept])
            yes, weights = np.array([t.rating == 2 for t in kept]), np.array([1 / t.inclusion for t in kept])
            if not yes.any():
                assert np.isnan(responsive[f, g]) and np.isnan(pure[f, g])
                continue
            assert responsive[f, g] == pytest.approx(
                gini(values[yes], values[~yes], weights[yes], weights[~yes]), abs=1e-6
            )
            assert pure[f, g] == pytest.approx(average_precision(values, yes, weights), abs=1e-6)
    assert np.isnan(clear[:, -1]).all() and np.isnan(pure[:, 0]).all() and not np.isnan(pure[:, 1:]).any()


def test_no_texts_at_all():
    natural = np.zeros((4, 2), dtype=np.float32)
    nothing = np.zeros(0, dtype=np.int64)
    assert np.isnan(clarity_matrix(natural, np.zeros((0, 2), dtype=np.float32), nothing, 3)).all()
    assert all(
        np.isnan(m).all() and m.shape == (2, 3) for m in rated_matrices(natural, RatedMass.of([evidence([])] * 3))
    )
    area, precision = ranked_rows(np.zeros((1, 2)), np.array([[0.0, 1.0]]), np.zeros((1, 2)))
    assert np.isnan(area[0]) and np.isnan(precision[0])


# --- p-values, q-values, percentiles ------------------------------------------------------------------------------------------


def matrices(clear, responsive=None, pure=None) -> CrossScores:
    """Square matrices, description i given to feature 10 + i."""
    n = len(clear)
    features = tuple(range(10, 10 + n))
    arrays = [clear, clear if responsive is None else responsive, clear if pure is None else pure]
    return CrossScores(features, features, *(np.asarray(a, dtype=np.float32) for a in arrays))


def described(n: int) -> list[Description]:
    return [Description(10 + i, f"concept {i}") for i in range(n)]


def null_run(rng, n: int = 20) -> CrossScores:
    """No description fits: features of different density, descriptions of different vagueness and numbers of texts."""
    noise = rng.standard_t(4, (3, n, n)) * rng.uniform(0.02, 0.3, (3, n, 1)) * rng.uniform(0.3, 2, (3, 1, n))
    tilt = rng.normal(0, 0.2, (3, n, 1)) + rng.normal(0, 0.2, (3, 1, n))
    scores = np.clip(noise + tilt, -1, 1)
    scores[1:, :, rng.random(n) < 0.2] = np.nan  # concepts that no rated text shows
    return matrices(*scores)


def test_p_values_are_uniform_where_no_description_fits():
    rng = np.random.default_rng(0)
    p_values, named = [], 0
    for _ in range(60):
        found = compare(null_run(rng), described(20))
        p_values += [one.p_value for one in found]
        named += sum(one.better_feature is not None for one in found)
    p_values = np.array(p_values)
    assert abs((p_values <= 0.05).mean() - 0.05) < 0.02 and abs((p_values <= 0.5).mean() - 0.5) < 0.05
    assert named <= 12, f"{named} of 1200 descriptions that fit nothing were called swapped"


def test_a_run_in_which_all_fit():
    clear = np.random.default_rng(0).normal(0, 0.05, (8, 8)) + 0.9 * np.eye(8)
    for one in compare(matrices(clear), described(8)):
        assert one.p_value == pytest.approx(1 / 57) and one.clarity_percentile == 100 and one.n_null == 7
        assert one.better_feature is None
    assert benjamini_hochberg(np.array([1 / 57] * 8)).tolist() == pytest.approx([1 / 57] * 8)


def test_swaps_are_named_with_the_feature_that_fits():
    clear = np.random.default_rng(0).normal(0, 0.05, (10, 10)) + 0.9 * np.eye(10)
    clear[:, [2, 7]] = clear[:, [7, 2]]
    found = compare(matrices(clear), described(10))
    assert [(i, one.better_feature) for i, one in enumerate(found) if one.better_feature is not None] == [
        (2, 17),
        (7, 12),
    ]
    assert [one.suggested_feature for one in found] == [10, 11, 17, 13, 14, 15, 16, 12, 18, 19]
    assert found[2].p_value > 0.05 > found[3].p_value and found[2].better_statistic > found[2].statistic + 4


def test_a_description_of_a_feature_that_has_its_own_is_named_too():
    """Feature 12 has its own description; that of feature 15 says the same in other words and is no concept of 15."""
    clear = np.random.default_rng(1).normal(0, 0.05, (10, 10)) + 0.9 * np.eye(10)
    clear[:, 5] = clear[:, 2]
    found = compare(matrices(clear), described(10))
    assert [(i, one.better_feature) for i, one in enumerate(found) if one.better_feature is not None] == [(5, 12)]
    assert found[2].suggested_feature == 12


def test_two_latents_of_one_concept_are_no_swap():
    clear = np.random.default_rng(1).normal(0, 0.05, (10, 10)) + 0.8 * np.eye(10)
    clear[3, 4] = clear[4, 3] = 0.95
    assert all(one.better_feature is None for one in compare(matrices(clear), described(10)))


def test_descriptions_of_one_feature_and_equal_texts_are_no_nulls():
    clear = np.random.default_rng(0).normal(0, 0.05, (5, 6)).astype(np.float32)
    features, owners = (1, 2, 3, 4, 5), (1, 1, 2, 3, 4, 5)
    clear[0, :2], clear[1, 2], clear[3, 2] = 0.9, 0.9, 0.95
    cross = CrossScores(features, owners, clear, clear, clear)
    texts = ["dogs", "a dog", "cats", "green", "Cats ", "blue"]
    found = compare(cross, [Description(i, t) for i, t in zip(owners, texts, strict=True)])
    assert [one.n_null for one in found] == [4, 4, 4, 5, 4, 5]
    assert found[0].clarity_percentile == 100 and found[1].clarity_percentile == 100
    assert found[2].better_feature is None, "feature 4 has the same words"


@pytest.mark.parametrize("copy", ["concept 2", "Concept 2.", "“concept” 2"])
def test_a_copied_label_is_pointed_at_the_feature_it_was_copied_from(copy):
    """Feature 15 carries 12's label; feature 17 fires on much of the same, and its own label fits nothing."""
    clear = np.random.default_rng(1).normal(0, 0.05, (10, 10)) + 0.9 * np.eye(10)
    clear[:, 5] = clear[:, 2]
    clear[2, 5], clear[7, [2, 5]] = 0.99, 0.87
    clear[7, 7] = 0.0
    labels = [Description(d.index, copy if d.index == 15 else d.text) for d in described(10)]
    found = compare(matrices(clear), labels)
    assert (found[5].better_feature, found[5].suggested_feature, found[5].copied) == (12, 12, True)
    assert found[2].better_feature is None and not found[2].copied and found[2].suggested_feature == 12
    assert found[5].n_null == found[2].n_null == 8, "equal words are no nulls of each other"


def test_two_features_that_both_deserve_one_label_are_not_told_to_exchange_it():
    clear = np.random.default_rng(2).normal(0, 0.05, (10, 10)) + 0.9 * np.eye(10)
    clear[[3, 4], [4, 3]] = 0.97
    labels = [Description(d.index, "dogs" if d.index in (13, 14) else d.text) for d in described(10)]
    assert all(one.better_feature is None for one in compare(matrices(clear), labels))


def test_a_run_tells_that_a_label_was_copied(server):
    results = run(server, DESCRIPTIONS | {6: TRUE[1]})
    frame = results.frame.set_index("index")
    assert frame.better_feature.dropna().to_dict() == {6: 1}
    assert "copied: feature 1 of the run has the same description and fits the description better" in frame["flags"][6]


def test_too_few_to_compare():
    for one in compare(matrices(np.eye(LEAST - 1)), described(LEAST - 1)):
        assert one.p_value is None and one.clarity_percentile is None and "fewer than 4" in one.reason
    same_words = [Description(10 + i, "dogs") for i in range(6)]
    assert compare(matrices(np.eye(6)), same_words)[0].p_value is None


def test_undefined_columns():
    clear = np.random.default_rng(0).normal(0, 0.05, (6, 6)) + 0.9 * np.eye(6)
    clear[:, 1] = np.nan
    rated = clear.copy()
    rated[:, 2] = np.nan
    found = compare(matrices(clear, rated, rated), described(6))
    assert found[1].p_value is None and found[1].reason == "none of the three metrics is defined"
    assert found[2].p_value < 0.05 and found[2].purity_percentile is None and found[2].clarity_percentile == 100


def test_statistic_is_not_moved_by_density_or_vagueness():
    rng = np.random.default_rng(0)
    clear = rng.normal(0, 0.1, (12, 12)) + 0.8 * np.eye(12)
    plain = fit_statistic(matrices(clear))
    tilted = fit_statistic(matrices(clear + np.linspace(-0.5, 0.5, 12)[:, None]))
    assert np.corrcoef(plain.ravel(), tilted.ravel())[0, 1] > 0.9


def test_percentile_and_assignment():
    assert percentile(1.0, np.array([0.0, 1.0, 2.0, np.nan])) == pytest.approx(50)
    assert percentile(float("nan"), np.array([0.0])) is None and percentile(1.0, np.array([np.nan])) is None
    noise = np.random.default_rng(0).normal(0, 1, (9, 9))
    assert assignment(noise, np.arange(9)).tolist() == list(range(9)), "nothing moves for noise"


# --- a whole run ------------------------------------------------------------------------------------------------------------


def test_the_diagonal_is_what_the_run_reports(server):
    results = run(server, DESCRIPTIONS)
    for column, result in enumerate(results):
        row = results.cross_scores.features.index(result.description.index)
        for name in ("clarity", "responsiveness", "purity"):
            assert getattr(results.cross_scores, name)[row, column] == pytest.approx(
                result.metrics[name].value, abs=1e-6
            )
    assert results.frame.q_value.max() < 0.05 and results.frame.better_feature.isna().all()
    assert (results.frame.clarity_null_percentile == 100).all()


def test_planted_swaps_are_found_and_no_other(server, tmp_path):
    swaps = {0: 5, 5: 0, 2: 8, 8: 2, 6: 11, 11: 6}
    asked = server.requests
    results = run(server, {i: DESCRIPTIONS[swaps.get(i, i)] for i in DESCRIPTIONS})
    calls = server.requests - asked
    frame = results.frame.set_index("index")
    assert frame.better_feature.dropna().to_dict() == swaps
    assert frame.suggested_feature.to_dict() == {i: swaps.get(i, i) for i in DESCRIPTIONS}
    assert (frame.q_value[[i for i in frame.index if i not in swaps]] < 0.05).all() and (
        frame.q_value[list(swaps)] > 0.05
    ).all()
    assert "feature 5 of the run fits" in frame["flags"][0]
    asked = server.requests
    run(server, {i: DESCRIPTIONS[swaps.get(i, i)] for i in (0, 1, 2)})
    assert calls - 2 == 4 * (server.requests - asked - 2), (
        "four times the descriptions, four times the calls: none for the matrices"
    )
    loaded = Results.load(results.save(tmp_path / "r.sqlite"))
    assert loaded.items == results.items
    for name in ("clarity", "responsiveness", "purity"):
        assert np.array_equal(getattr(loaded.cross_scores, name), getattr(results.cross_scores, name), equal_nan=True)
    assert (loaded.cross_scores.features, loaded.cross_scores.owners) == (
        results.cross_scores.features,
        results.cross_scores.owners,
    )


def test_large_runs_are_compared_in_parts_and_keep_no_matrices(server, monkeypatch):
    monkeypatch.setattr("fade_lens.baselines.permutation.MOST", 6)
    results = run(server, {i: DESCRIPTIONS[{0: 1, 1: 0}.get(i, i)] for i in DESCRIPTIONS})
    assert (
        results.cross_scores is None and results.frame.n_null.eq(5).all()
        if "n_null" in results.frame
        else results.cross_scores is None
    )
    frame = results.frame.set_index("index")
    assert frame.better_feature.dropna().to_dict() == {0: 1, 1: 0}
    with pytest.raises(InputError, match="keep no matrices"):
        results.plot_cross_scores()


def test_heat_map(server):
    results = run(server, {i: DESCRIPTIONS[i] for i in range(3)} | {4: "<b>bold</b> $x$"})
    figure = results.plot_cross_scores()
    assert len(figure.data) >= 3 and "<b>bold" not in figure.to_json()


# --- null descriptions ---------------------------------------------------------------------------------------------------------------


def test_null_descriptions_score_nothing_and_write_nothing_twice(server, tmp_path):
    def writings() -> int:
        from fade_lens.judge import Prompts

        return sum(Prompts().read_writing(body["messages"]) is not None for body in server.bodies)

    few = dict(list(DESCRIPTIONS.items())[:7])
    before = writings()
    plain = run(server, few)
    alone = writings() - before
    results = run(server, few, nulls=("shuffled", "random", "generic"))
    assert writings() - before - alone == alone + alone // len(few), (
        "the generic description alone has new texts written"
    )
    same = [name for name in plain.frame if not name.startswith("judge_")]
    assert results.frame[same].equals(plain.frame[same])
    assert set(results.nulls) == {"shuffled", "random", "generic"}
    for result, shuffled, random, generic in zip(results, *results.nulls.values(), strict=True):
        assert shuffled.description.index == generic.description.index == result.description.index
        assert shuffled.description.text != result.description.text == random.description.text
        assert random.description.index not in few
        assert (
            shuffled.description.null == "shuffled"
            and result.description.null is None
            and "generic" in generic.responsiveness.reason
        )
    frame = results.summary().set_index(["null", "metric"])
    for kind in ("shuffled", "random"):
        row = frame.loc[(kind, "clarity")]
        assert row["mean"] > 0.6 and row.low > 0.4 and row.n == len(few)
    loaded = Results.load(results.save(tmp_path / "r.sqlite"))
    assert loaded.nulls == results.nulls


def test_null_descriptions_are_part_of_the_estimate(server):
    fade = Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **SMALL)
    plain = fade.estimate(DESCRIPTIONS).calls
    generic = fade.estimate(DESCRIPTIONS, nulls=["generic"]).calls - plain
    shuffled = fade.estimate(DESCRIPTIONS, nulls=["shuffled"]).calls - plain
    assert shuffled == plain - generic * len(DESCRIPTIONS), "ratings anew, nothing more to write"


def test_null_descriptions_that_cannot_be_made(server):
    for descriptions, nulls, message in [
        (TRUE, ("scrambled",), "'shuffled', 'random', 'generic'"),
        ({0: TRUE[0]}, ("shuffled",), "leave 'shuffled' out"),
        ({i: f"concept {i}" for i in range(20)}, ("random",), "only 4 are not described"),
    ]:
        with pytest.raises(InputError, match=message):
            run(server, descriptions, nulls=nulls)
