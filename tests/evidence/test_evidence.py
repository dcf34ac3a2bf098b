"""Windows and negatives of the planted model, in which what fires where is known."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fade_lens import Corpus, InputError, Subject
from fade_lens._util.seeds import rng
from fade_lens.evidence import negatives
from fade_lens.evidence.negatives import KINDS, Negatives, negatives_of, neighbourhood, window_vectors
from fade_lens.evidence.roles import ROLES, SHARES, roles_of
from fade_lens.evidence.windows import Draw, Evidence, EvidenceSettings, Grid, Place, choose
from tests.planted import CLASSES, natural_texts, planted_model, planted_sae
from tests.tiny import ANIMALS, OTHERS

MODEL, SAE = planted_model(), planted_sae()
SILENT = 3


def subject_of(texts: list[str] | Corpus, indices: tuple[int, ...] = (0, 1, 2, SILENT), **settings: Any) -> Subject:
    return Subject(MODEL, SAE, texts, indices, EvidenceSettings(window_tokens=4, **settings))


TEXTS = [*natural_texts(900), "", *(" ".join(OTHERS[:16] * 3) + f" {OTHERS[i]}" for i in range(6))]
SUBJECT = subject_of(TEXTS)
EVIDENCE = Evidence(SUBJECT)


def vectors_of(evidence: Evidence) -> np.ndarray:
    """An embedding that is a hash of the window's words, and is the same for windows that share most."""
    grid, ids = evidence.grid, evidence.subject.tokens
    rows = np.zeros((len(grid.text), 64), dtype=np.float32)
    for row, (text, first, last) in enumerate(zip(grid.text, grid.first, grid.last, strict=True)):
        np.add.at(rows[row], ids[int(text)][first:last] % 64, 1.0)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


VECTORS = vectors_of(EVIDENCE)


# Roles


def test_each_role_has_its_share_of_the_documents() -> None:
    shares = [len(EVIDENCE.texts(role)) / len(TEXTS) for role in ROLES]
    assert np.allclose(shares, SHARES, atol=0.05)
    assert sorted(np.concatenate([EVIDENCE.texts(role) for role in ROLES])) == list(range(len(TEXTS)))


def test_a_documents_role_is_its_own_whatever_the_order_or_the_features() -> None:
    order = np.random.default_rng(0).permutation(len(TEXTS))
    other = subject_of([TEXTS[i] for i in order], (5,))
    assert (Evidence(other).role == EVIDENCE.role[order]).all()
    shorter = Evidence(subject_of(TEXTS, (0,), context=6))
    assert (shorter.role == EVIDENCE.role).mean() > 0.95, "the same, but for texts that a shorter context makes equal"
    assert shorter.id == EVIDENCE.id == Evidence(other).id
    assert (roles_of(SUBJECT.tokens, EVIDENCE.marks, 1) != EVIDENCE.role).mean() > 0.4, "another seed, other roles"


def test_windows_of_a_document_and_duplicates_have_one_role() -> None:
    words = [" ".join(np.random.default_rng(i).choice(OTHERS, 90)) for i in range(40)]
    windows = subject_of(Corpus.from_texts(words, windows=True), context=33)
    role = Evidence(windows).role
    for document in range(40):
        assert len(set(role[windows.tokens.documents == document])) == 1
    # The second half of each text begins with 32 tokens of the first half's.
    shared = [f"{' '.join(text.split()[:32])} {' '.join(reversed(text.split()[:20]))}" for text in words]
    both = Evidence(subject_of([*words, *shared, *words], context=64)).role.reshape(3, 40)
    assert (both[0] == both[1]).all() and (both[0] == both[2]).all() and len(set(both[0])) > 1


# Windows


def test_windows_hold_the_peak_and_lie_on_the_grid_or_round_it() -> None:
    for centred in (False, True):
        found = EVIDENCE.read(EVIDENCE.active("show", Draw(12, centred=centred)))
        assert not found[SILENT] and all(len(found[index]) == 12 for index in CLASSES)
        for index, members in CLASSES.items():
            for window in found[index]:
                assert len(window.tokens) == len(window.ids) == len(window.activations) <= 4
                assert window.tokens[window.peak].strip() in members and window.place.peak > 0
                assert window.largest == pytest.approx(SUBJECT.natural(index)[window.place.text], rel=1e-5)
                assert "<bos>" not in window.text and window.text.strip() in TEXTS[window.place.text]
                if not centred and window.place.last < SUBJECT.tokens.lengths[window.place.text]:
                    assert (window.place.first - 1) % 4 == 0, "BOS stands before the grid"


def test_the_grid_covers_every_text_and_its_last_window_is_whole() -> None:
    grid, tokens = Grid.of(SUBJECT.tokens, 4), SUBJECT.tokens
    for text in (0, 900, 903):
        own = np.flatnonzero(grid.text == text)
        covered = {at for w in own for at in range(grid.first[w], grid.last[w])}
        assert covered == set(range(1, tokens.lengths[text])) and grid.begin[text] == own[0]
        assert all(grid.first[grid.at(text, at)] <= at < grid.last[grid.at(text, at)] for at in covered)
        assert tokens.lengths[text] < 5 or all(grid.last[w] - grid.first[w] == 4 for w in own)


@pytest.mark.parametrize("by", ["strata", "random", "top", "square"])
def test_inclusion_probabilities_are_those_of_the_draws(by: Any) -> None:
    values = np.sort(np.random.default_rng(0).exponential(size=37))[::-1]
    draw, drawn, told = Draw(12, by, of=20, strata=5), np.zeros(37), np.zeros(37)
    for seed in range(2000):
        chosen, inclusion, stratum = choose(values, draw, np.random.default_rng(seed))
        assert len(chosen) == len(set(chosen)) == 12 and (np.diff(chosen) > 0).all()
        drawn[chosen] += 1 / 2000
        told[chosen] = inclusion
        if by == "strata":
            assert sorted(Counter(stratum).values()) in ([2, 2, 2, 3, 3], [2, 2, 3, 2, 3])
    assert np.abs(drawn - told).max() < 0.06 and told.sum() == pytest.approx(12, abs=0.01)
    few, certain, _ = choose(values[:5], draw, np.random.default_rng(0))
    assert len(few) == 5 and (certain == 1).all()


def test_written_texts_are_read_as_those_of_the_corpus_are() -> None:
    lengths, number = SUBJECT.tokens.lengths, int(EVIDENCE.firing(0, None)[0])
    whole = EVIDENCE.read({0: [Place(n, 1, int(lengths[n])) for n in (number, 3)]})[0]
    read = EVIDENCE.read_written(0, [TEXTS[number], TEXTS[3], ""])
    assert [(w.tokens, w.ids) for w in read[:2]] == [(w.tokens, w.ids) for w in whole]
    assert [w.largest for w in read[:2]] == pytest.approx([w.largest for w in whole]) and whole[0].largest > 0
    assert all(w.place.text == -1 and w.place.kind == "written" for w in read)
    assert [w.silent(EVIDENCE.floor(0)) for w in read] == [False, not whole[1].largest, False], (
        "an empty text is neither"
    )
    assert not EVIDENCE.read_written(0, [])


def test_what_a_feature_lacks_is_told() -> None:
    assert EVIDENCE.lacking(0, "show", 3) is None
    reasons = [EVIDENCE.lacking(SILENT, "show", 1), EVIDENCE.lacking(0, "test", 500)]
    assert [reason.code for reason in reasons if reason is not None] == ["silent", "too_few_texts"]
    assert EVIDENCE.scale(0) == np.nanmax(SUBJECT.natural(0)[EVIDENCE.texts("show")]) and np.isnan(
        EVIDENCE.scale(SILENT)
    )


def test_a_neuron_is_silent_below_a_quantile() -> None:
    subject = Subject(MODEL, "blocks.0.mlp.hook_post", TEXTS[:300], (0, 1), EvidenceSettings(silent_quantile=0.8))
    evidence = Evidence(subject)
    silent, firing = (len(some) for some in (evidence.silent(0, None), evidence.firing(0, None)))
    assert 0.75 < silent / 300 < 0.85 and 0 < firing <= 300 - silent


# Negatives


def drawn(role: Any = "test", n: int = 12, **more: Any) -> dict[int, dict[str, list[Any]]]:
    near = neighbourhood(EVIDENCE, 3)
    assert near is not None
    return Negatives(EVIDENCE, vectors=VECTORS, neighbours=near, **more).draw(role, n)


@pytest.mark.parametrize("order", ["nearest", "mean"])
def test_each_kind_of_negative_is_what_its_name_says(order: Any) -> None:
    found = drawn(order=order)
    exemplars = EVIDENCE.active("show")
    texts = set(EVIDENCE.texts("test").tolist())
    for index in CLASSES:
        silent = set(EVIDENCE.silent(index, "test").tolist())
        shown = VECTORS[[EVIDENCE.grid.at(place.text, place.peak) for place in exemplars[index]]]
        for kind in KINDS:
            places = found[index][kind]
            assert len(places) <= 12 and len({place.text for place in places}) == len(places)
            assert all(place.kind == kind and place.text in texts for place in places)
            assert kind in ("random", "similar") or {place.text for place in places} <= silent
        assert len(found[index]["random"]) == len(found[index]["similar_silent"]) == 12
        assert {place.inclusion for place in found[index]["random_silent"]} == {12 / len(silent)}
        near = np.max if order == "nearest" else np.mean

        def likeness(kind: str, index: int = index, shown: np.ndarray = shown, near: Any = near) -> float:
            rows = [EVIDENCE.grid.at(place.text, place.first) for place in found[index][kind]]
            return float(np.mean([near(VECTORS[row] @ shown.T) for row in rows]))

        assert min(likeness("similar"), likeness("similar_silent")) > likeness("random_silent")
        # Animals are never silent, so that no silent text has a token at which the latent fires.
        assert not found[index]["token_silent"]


def test_the_nearest_windows_are_those_of_a_plain_loop() -> None:
    places = {index: some[:1] for index, some in EVIDENCE.active("show", Draw(1, "top")).items() if some}
    found = Negatives(EVIDENCE, vectors=VECTORS).draw("test", 9, ("similar_silent",), exemplars=places, indices=[0])
    exemplar = VECTORS[EVIDENCE.grid.at(places[0][0].text, places[0][0].peak)]
    silent = set(EVIDENCE.silent(0, "test").tolist())
    order = np.argsort(-(VECTORS @ exemplar), kind="stable")
    wanted = list(dict.fromkeys(int(t) for t in EVIDENCE.grid.text[order] if int(t) in silent))[:9]
    near = {place.text for place in found[0]["similar_silent"]}
    likeness = [sorted(max(VECTORS[EVIDENCE.grid.text == t] @ exemplar) for t in some) for some in (near, wanted)]
    assert np.allclose(likeness[0], likeness[1])


def test_a_token_can_be_there_and_the_feature_silent() -> None:
    # A latent that fires on the first of two animals only: its threshold is above what a second one reaches.
    subject = subject_of(TEXTS)
    values = subject.activations.values.copy()
    with_cat = [i for i, text in enumerate(TEXTS) if "cat" in text.split()]
    values[with_cat[::2], 0] = 0.0
    subject.observe(type(subject.activations)(values, subject.activations.positions, subject.activations.counted, subject.activations.active, 0))  # fmt: skip
    evidence = Evidence(subject)
    peaks = [place for place in evidence.active(None)[0] if place.text in with_cat]
    found = Negatives(evidence).draw(None, 50, ("token_silent",), exemplars={0: peaks}, indices=[0])[0]["token_silent"]
    assert {place.text for place in found} == set(with_cat[::2]) and peaks
    windows = evidence.read({0: found})[0]
    assert all("cat" in window.text for window in windows) and found[0].inclusion == 1.0


def test_a_neighbours_windows_are_its_own_where_the_feature_is_silent() -> None:
    near = (SUBJECT, {0: (1, SILENT)})
    places = Negatives(EVIDENCE, neighbours=near).draw("test", 10, ("neighbour",), indices=[0, 2])
    assert not places[2]["neighbour"], "none are known, and no other kind stands in for them"
    colours = EVIDENCE.read({1: places[0]["neighbour"]})[1]
    assert len(colours) == 10 and all(window.largest > 0 and not set(window.text.split()) & set(ANIMALS) for window in colours)  # fmt: skip


def test_fewer_than_asked_stay_fewer_and_unknown_kinds_are_told() -> None:
    found = Negatives(EVIDENCE, vectors=VECTORS).draw("test", 10_000, ("random_silent", "similar_silent"), indices=[0])[
        0
    ]
    n = len(EVIDENCE.silent(0, "test"))
    assert len(found["random_silent"]) == len(found["similar_silent"]) == n
    assert {place.inclusion for place in found["random_silent"]} == {1.0}
    with pytest.raises(InputError, match="did you mean 'random'"):
        Negatives(EVIDENCE).draw("test", 3, ("randomm",))  # pyright: ignore[reportArgumentType]


def test_embedded_windows_are_kept_beside_the_store_and_not_embedded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def embed(texts: Sequence[str], model: str, **_: Any) -> np.ndarray[Any, Any]:
        asked.append(len(texts))
        return np.stack([rng(0, model, text).normal(size=3) for text in texts]).astype(np.float32)

    def vectors(
        model: str = "a", store: Path | None = tmp_path / "run.sqlite", **settings: Any
    ) -> np.ndarray[Any, Any]:
        negatives.EMBEDDED.clear()  # as in another process
        evidence = Evidence(SUBJECT, EvidenceSettings(**settings), store=store)
        return negatives.window_vectors(evidence, model)

    monkeypatch.setattr(negatives, "embed", embed)
    first = vectors()
    assert np.array_equal(vectors(), first) and len(asked) == 1
    assert not np.array_equal(vectors("b"), first) and len(vectors(window_tokens=4)) > len(first) and len(asked) == 3
    vectors(store=None)
    assert len(asked) == 4 and len(list(tmp_path.glob("*"))) == 3, (
        "another model, and windows of another size, have files of their own"
    )
    for file in tmp_path.glob("*.npy"):
        file.write_bytes(file.read_bytes()[:-9])
    assert np.array_equal(vectors(), first) and len(asked) == 5, "a damaged file is made anew"
    assert np.array_equal(vectors(), first) and len(asked) == 5
    negatives.EMBEDDED.clear()


@pytest.mark.real
def test_the_real_embedding_model_finds_windows_of_like_meaning() -> None:
    pytest.importorskip("sentence_transformers", reason="the extra `similarity` is not installed")
    negatives.EMBEDDED.clear()
    evidence = Evidence(subject_of(natural_texts(150), (0,)), EvidenceSettings(window_tokens=12))
    found = negatives_of(evidence).draw("show", 5)[0]
    assert set(found) == set(KINDS) and len(found["similar"]) == len(found["similar_silent"]) == 5
    assert {place.text for place in found["similar_silent"]} <= set(evidence.silent(0, "show").tolist())
    exemplars = window_vectors(evidence)[
        [evidence.grid.at(p.text, p.peak) for p in evidence.drawn(0, "show", Evidence.default)]
    ]

    def likeness(kind: str) -> float:
        rows = [evidence.grid.at(place.text, place.first) for place in found[kind]]
        return float((window_vectors(evidence)[rows] @ exemplars.T).max(axis=1).mean())

    assert likeness("similar_silent") > likeness("random_silent") + 0.1
    negatives.EMBEDDED.clear()
