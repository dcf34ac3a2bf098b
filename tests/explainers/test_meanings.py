"""`meanings`: windows in clusters, as many as are told apart on others, a rule each."""

import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from fade_lens import Fade, MissingExtraError, Subject
from fade_lens.evidence.windows import Draw, Evidence, Place, Window
from fade_lens.explainers.base import FeatureEvidence
from fade_lens.explainers.meanings import Meanings, peak_word
from fade_lens.metrics.separability import Parts, parts_of
from fade_lens.report.cards import DETAILS
from fade_lens.report.explaining import explanation_data
from tests.fake_judge import FakeJudge
from tests.planted import CLASSES, TRUE, judge_of, natural_texts, planted_model, rule
from tests.tiny import HOOK, tiny_sae

TEXTS = natural_texts(900)
CLASS_OF = {word: index for index, words in CLASSES.items() for word in words}


def embedded(texts: Sequence[str], *_: Any, **__: Any) -> Any:
    """Texts as sums of their words' vectors; words of one class have a cosine of 0.64."""

    def drawn(name: str) -> Any:
        found = np.random.default_rng(zlib.crc32(name.encode())).normal(size=64)
        return found / np.linalg.norm(found)

    def word(one: str) -> Any:
        return 0.8 * drawn(f"class {CLASS_OF[one]}") + 0.6 * drawn(one) if one in CLASS_OF else drawn(one)

    rows = [sum(map(word, re.findall(r"\w+", text) or [""])) for text in texts]
    return np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32).reshape(-1, 64)


@pytest.fixture(autouse=True)
def offline(embedding: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fade_lens.explainers.meanings.embed", embedded)


def classes_of(index: int) -> set[int]:
    """What a planted latent fires on: the first ten on one class of words, the next ten on two."""
    return {index % 3} if index < 10 else {index % 3, (index + 1) % 3}


def planted_sae() -> Any:
    """Twenty latents that read the directions of one or of two classes, one of these more weakly."""
    sae = tiny_sae("jumprelu", d_sae=20, hook=HOOK)
    with torch.no_grad():
        for zeros in (sae.b_dec, sae.b_enc, sae.W_enc):
            zeros.zero_()
        sae.threshold.fill_(1.0)
        for index in range(20):
            for at, of in enumerate(sorted(classes_of(index))):
                sae.W_enc[of, index] = 1.0 - 0.5 * at
    return sae


def names(body: dict[str, Any]) -> str | None:
    """An explainer by rule: the class of most words that are marked; some windows have words of two."""
    found = Counter(CLASS_OF[word] for word in re.findall(r"<<(\w+)>>", body["messages"][-1]["content"]))
    (best, n), *_ = found.most_common(1)
    return json.dumps({"description": TRUE[best] if n > 0.7 * found.total() else ""})


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(rule=rule, says=names) as running:
        yield running


def make(server: FakeJudge, **settings: Any) -> Fade:
    return Fade(
        planted_model(), planted_sae(), corpus=settings.pop("corpus", TEXTS), judge=judge_of(server), **settings
    )


def test_planted_latents_of_one_and_of_two_meanings_are_told_apart(server: FakeJudge) -> None:
    made = make(server).explain(range(20), explainer="meanings", progress=False)
    right = [row.search["meanings"] == len(classes_of(row.index)) for row in made.rows]
    assert sum(right[:10]) >= 8 and sum(right[10:]) >= 8
    named = [{text for text, _ in d.rules} == {TRUE[i] for i in classes_of(d.index)} for d in made]
    assert sum(named) >= 16
    strengths = {strength for d in made for _, strength in d.rules}
    assert 5 in strengths and min(strengths) < 5, "the weaker class has the weaker rule"
    assert server.requests == sum(row.search["meanings"] for row in made.rows), "a call a cluster"
    two: Any = made.frame.set_index("index").loc[11]
    assert two["search_separability_2"] > 0.75 > made.frame.set_index("index").loc[1]["search_separability_2"]


def test_the_estimate_counts_five_calls_a_feature_with_as_many_windows_as_are_shown(server: FakeJudge) -> None:
    fade = make(server)
    found, one = (fade.estimate([0, 11], explainer=name, scorers=()) for name in ("meanings", "one-shot"))
    assert found.calls == 10 == 5 * one.calls and found.prompt_tokens == 5 * one.prompt_tokens
    made = fade.explain([0, 11], explainer="meanings", progress=False)
    assert server.requests <= 10
    facts = dict(explanation_data(made[11], DETAILS[3])["explained"]["facts"])
    assert "meanings 2; unnamed 0; separability 2 " in facts["Chosen by"]


def test_labels_that_say_the_same_are_one_rule_and_clusters_without_one_are_counted(server: FakeJudge) -> None:
    said = iter(["Animals.", "animals", ""])
    server.says = lambda body: json.dumps({"description": next(said)})
    fade = make(server, meaning_cap=3)
    windows = fade_windows(fade)
    explainer = Meanings(fade.settings)
    explainer.parts[11] = Parts(np.arange(len(windows)) % 3, {2: 0.9, 3: 0.8})
    with fade.judge as judge:
        made = judge.submit(lambda asked: explainer.explain(FeatureEvidence(11, windows), asked)).result()
    assert made.description is not None and len(made.description.rules) == 1, "whichever is answered first"
    assert made.description.text in ("Animals.", "animals")
    assert made.search == {"candidates": 3, "meanings": 3, "unnamed": 1, "separability_2": 0.9, "separability_3": 0.8}
    assert len(made.shown) == len(windows)


def fade_windows(fade: Fade) -> Any:
    evidence = Evidence(Subject(fade.model, fade.source, fade.corpus, [11], fade.settings))
    return evidence.read({11: evidence.drawn(11, "show", Draw(9))})[11]


def test_prose_gives_the_reason(server: FakeJudge) -> None:
    server.says = lambda body: "Well, let me see.\nThese excerpts are about many things."
    made = make(server).explain([0, 11], explainer="meanings", progress=False)
    assert made.reasons == {"unreadable": 2} and made[11].search["unnamed"] == made[11].search["meanings"] == 2


def test_few_equal_or_unembedded_windows_are_one_meaning(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    same = ["the cat on a river", *["a big house"] * 40]
    alike = make(server, corpus=[f"{text} {'the ' * (n % 7)}" for n, text in enumerate(same * 4)], least_texts=1)
    some = alike.explain([0], explainer="meanings", progress=False)[0]
    assert some.search == {"candidates": 1, "meanings": 1, "unnamed": 0}
    few = make(server, corpus=[*TEXTS[:30], "the cat"]).explain([3], explainer="meanings", progress=False)[3]
    assert few.reason is not None and few.reason.code in ("too_few_texts", "silent")
    monkeypatch.setattr("fade_lens.explainers.meanings.embed", lambda texts: np.full((len(texts), 4), np.nan, dtype=np.float32))  # fmt: skip
    nothing = make(server).explain([11], explainer="meanings", progress=False)[11]
    assert nothing.search["meanings"] == 1 and nothing.search["candidates"] == 1


def test_the_extra_is_named_before_anything_is_asked(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fade_lens.data.embedding.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"Explaining by meanings needs 'sentence-transformers'.*fade-lens\[similarity\]"):  # fmt: skip
        make(server).explain([0], explainer="meanings", progress=False)
    assert server.requests == 0


def unit(rows: Any) -> Any:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_parts_are_found_whatever_their_number_and_not_in_what_is_one(k: int) -> None:
    for seed in range(10):
        random = np.random.default_rng([seed, k])
        middles = np.linalg.qr(random.normal(size=(40, k)))[0].T

        def around(n: int, middles: Any = middles, random: Any = random, k: int = k) -> Any:
            # Unequal spread: what is one is no round cloud.
            return unit(1.2 * middles[random.integers(k, size=n)] + random.normal(size=(n, 40)) * np.linspace(0.3, 0.02, 40))  # fmt: skip

        found = parts_of(around(60), around(30), unit(random.normal(size=(100, 40))), seed=seed)
        assert found.k == k, (seed, found.separability)


def test_parts_count_by_things_that_did_not_make_them() -> None:
    random, middles = np.random.default_rng(0), np.eye(2, 40)

    def around(of: Any) -> Any:
        return unit(middles[of] + 0.03 * random.normal(size=(len(of), 40)))

    shown, unrelated = around(np.arange(60) % 2), unit(random.normal(size=(100, 40)))
    assert parts_of(shown, around(np.arange(30) % 2), unrelated).k == 2
    assert parts_of(shown, around(np.zeros(30, dtype=int)), unrelated).k == 1, "no window of the second kind was kept"
    # What the two kinds share, and unrelated things do not, makes them one.
    kin = [unit(some + np.eye(1, 40, 39) * 2) for some in (shown, around(np.arange(30) % 2))]
    assert parts_of(*kin, unrelated).k == 1


def test_parts_of_something_that_is_too_small_are_one() -> None:
    nothing = np.zeros((0, 8), dtype=np.float32)
    some = unit(np.random.default_rng(0).normal(size=(20, 8)))
    for shown, held, others in ((nothing, nothing, nothing), (some[:5], some, some), (some, nothing, some), (np.repeat(some[:1], 20, 0), some, some)):  # fmt: skip
        found = parts_of(shown, held, others)
        assert found.k == 1 and len(found.labels) == len(shown)


def test_the_word_at_the_peak_is_whole() -> None:
    window = Window(Place(0, 0, 4), (" some", " unre", "lated", "!"), (0,) * 4, (0.0, 0.0, 2.0, 0.0))
    assert peak_word(window) == "unrelated"
