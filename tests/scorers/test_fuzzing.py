"""Fuzzing of planted latents: right and wrong marks of the same windows, and what the score says of descriptions."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fade_lens import Fade, Results
from fade_lens._util.errors import JudgeError
from fade_lens._util.seeds import rng
from fade_lens.evidence.marking import class_of, exchanged, fires_at, put, silent_at, wrong_tokens
from fade_lens.evidence.windows import Place, Window
from fade_lens.judge import Judge
from fade_lens.judge.prompts import read_rating
from fade_lens.judge.single import BACKGROUND
from fade_lens.scorers.deciding import WindowScores
from fade_lens.scorers.fuzzing import task
from tests.fake_judge import FakeJudge
from tests.planted import SHUFFLED, TRUE, WORDS_OF, judge_of, natural_texts, planted_model, planted_sae
from tests.tiny import ANIMALS

MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts(700)
SMALL: dict[str, Any] = {"fuzzing_texts": 32, "fuzzing_silent": 8, "window_tokens": 8}


def at_marks(concept: str, text: str) -> int:
    """Whether a marked word is of the class that the concept names."""
    return int(bool(WORDS_OF.get(concept, set()) & {word.strip() for word in re.findall(r"<<(.*?)>>", text)}))


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(rule=at_marks) as running:
        yield running


def scored(judge: Judge, descriptions: Any = TRUE, *, corpus: Any = TEXTS, store: Any = None, **settings: Any) -> Results:  # fmt: skip
    fade = Fade(MODEL, SAE, corpus=corpus, judge=judge, **(SMALL | settings))
    return fade.evaluate(descriptions, scorers=("fuzzing",), store=store, progress=False)


def values(results: Results) -> list[float]:
    return [float(value) for r in results if (value := r.metric("fuzzing").value) is not None]


def test_right_descriptions_are_told_from_swapped_ones(server: FakeJudge) -> None:
    results = scored(judge_of(server))
    assert values(results) == [1, 1, 1] and set(results.frame["fuzzing_silent"]) == {1}
    assert min(results.frame["fuzzing_low"].tolist()) > 0.7
    # What is marked wrongly may be of another class that is planted, too.
    assert all(value < 0.6 for value in values(scored(judge_of(server), SHUFFLED)))


def test_each_window_has_right_and_wrong_marks_in_equal_number_and_never_in_one_request(server: FakeJudge) -> None:
    found = scored(judge_of(server))[0].evidence["fuzzing"]
    assert isinstance(found, WindowScores)
    marks: defaultdict[int, dict[str, int]] = defaultdict(dict)
    words: defaultdict[int, set[str]] = defaultdict(set)
    for text in found.texts:
        marks[text.number][text.kind] = text.text.count("<<")
        words[text.number].add(re.sub("<<|>>", "", text.text))
    pairs = [kinds for kinds in marks.values() if "right_marks" in kinds]
    assert len(pairs) == 16 and all(kinds["right_marks"] == kinds["wrong_marks"] > 0 for kinds in pairs)
    assert all(len(some) == 1 for some in words.values())
    assert Counter(t.kind for t in found.texts) == {"right_marks": 16, "wrong_marks": 16, "silent_marks": 8}
    whole = {re.sub("<<|>>", "", t.text) for t in found.texts}
    assert len(whole) == 24, "no two windows read alike, so that requests can be checked"
    for body in server.bodies:
        if (asked := read_rating(body["messages"])) is not None:
            bare = [re.sub("<<|>>", "", text) for text in asked[1].values()]
            assert len(set(bare)) == len(bare)


def test_what_the_text_says_does_not_help(server: FakeJudge) -> None:
    server.rule = lambda concept, text: int(bool(WORDS_OF.get(concept, set()) & set(re.sub("<<|>>", "", text).split())))
    results = scored(judge_of(server))
    assert values(results) == pytest.approx([0.5] * 3) and set(results.frame["fuzzing_silent"]) == {1}


def test_the_estimate_is_what_is_asked(server: FakeJudge) -> None:
    fade = Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **SMALL)
    estimate = fade.estimate(TRUE, scorers=("fuzzing",))
    fade.evaluate(TRUE, scorers=("fuzzing",), progress=False)
    assert estimate.calls == 3 * 4 == server.requests - 2, "two to see whether it answers"
    default = Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server))
    assert default.estimate({0: "x"}, scorers=("fuzzing",)).calls == 10
    assert default.estimate({0: "x"}, scorers=("detection", "fuzzing")).calls == 20


def test_a_run_that_stopped_asks_nothing_twice(server: FakeJudge, tmp_path: Any) -> None:
    whole = scored(judge_of(server))
    asked = server.requests
    first = Judge("planted", base_url=server.base_url, api_key="sk-made-up", max_calls=5, concurrency=1)
    with pytest.raises(JudgeError):
        scored(first, store=tmp_path)
    before = server.requests
    assert [r.metrics for r in scored(judge_of(server), store=tmp_path)] == [r.metrics for r in whole]
    assert 0 < server.requests - before < asked - 3


def test_texts_that_hold_the_marks_get_others(server: FakeJudge) -> None:
    server.rule = lambda concept, text: int(any(f"⟦{word}⟧" in text for word in WORDS_OF.get(concept, set())))
    results = scored(judge_of(server), corpus=[*TEXTS, "the old << house"])
    assert values(results) == [1, 1, 1]
    assert "between ⟦ and ⟧" in server.bodies[-1]["messages"][0]["content"]


def test_a_judge_that_rates_singly_is_asked_about_marks_by_log_probabilities() -> None:
    words = task(Judge("any", base_url="http://127.0.0.1:9/v1", api_key="sk-made-up"))
    with FakeJudge(rule=lambda concept, text: 2 * at_marks(concept, text), asked_in=words.prompts) as running:
        single = Judge("planted", base_url=running.base_url, api_key="sk-made-up", rating="single")
        texts = ["the <<cat>> runs", "the cat <<runs>>"]
        ratings = words.submit(single, TRUE[0], texts, size=10, seed=0).result()
    assert [rating.value for rating in ratings] == [2, 0]
    assert [rating.score is not None for rating in ratings] == [True, True] and running.requests == 2 + len(BACKGROUND)


def test_features_without_evidence_have_their_reason(server: FakeJudge) -> None:
    dense = [" ".join(text.split()[i % 9] for i in range(1)) for text in natural_texts(20)]
    results = scored(judge_of(server), {**TRUE, 3: "names of rivers"})
    assert results[3].metric("fuzzing").reason is not None and len(values(results)) == 3
    only = ["cat"] * 6 + ["dog"] * 6 + dense + ["the old house"]
    reason = scored(judge_of(server), {0: TRUE[0]}, corpus=only)[0].metric("fuzzing").reason
    assert reason is not None and reason.code == "no_wrong_marks"


def test_wrong_tokens_are_silent_different_and_matched() -> None:
    """Property test on random windows of words, pieces and signs."""
    random = np.random.default_rng(0)
    choices = np.array([" word", "piece", ",", " a", ".", "\n"])
    for trial in range(200):
        n = int(random.integers(2, 24))
        tokens = tuple(random.choice(choices, n).tolist())
        values = [None if x < 0.1 else 0.0 if x < 0.7 else float(x) for x in random.random(n)]
        window = Window(Place(trial, 0, n), tokens, tuple(range(n)), tuple(values))
        right = fires_at(window, 0.3)
        like = [(class_of(tokens, at), int(random.integers(n))) for at in right]
        wrong = wrong_tokens(window, like, rng(0, "fuzzing", 9, trial))
        silent = silent_at(window)
        assert set(wrong) <= {at for at, a in enumerate(values) if a == 0}
        assert len(set(wrong)) == len(wrong) == min(len(right), len(silent))
        assert wrong == wrong_tokens(window, like, rng(0, "fuzzing", 9, trial))
        have, want, got = (Counter(class_of(tokens, at) for at in some) for some in (silent, right, wrong))
        if len(wrong) == len(right):
            assert all(got[kind] >= min(have[kind], want[kind]) for kind in want), "matched as far as there are any"
        if wrong and (near := [abs(at - like[0][1]) for at in silent if class_of(tokens, at) == like[0][0]]):
            assert abs(wrong[0] - like[0][1]) == min(near), "the first has the nearest of its class"
        assert put(window, wrong).count("<<") == len(wrong)
        assert put(window, wrong).replace("<<", "").replace(">>", "") == window.text


def test_wrong_marks_stand_where_right_ones_do() -> None:
    """Peaks near the beginning: evenly drawn wrong marks would be told by their place."""
    random = np.random.default_rng(0)
    peaks = np.minimum(random.exponential(5, 60).astype(int), 31)
    rows = [tuple(float(at == peak) for at in range(32)) for peak in peaks.tolist()]
    windows = [Window(Place(text, 0, 32), (" a",) * 32, tuple(range(32)), row) for text, row in enumerate(rows)]
    right = [fires_at(window, 0.3) for window in windows]
    like = exchanged(windows, right, rng(0, "fuzzing", 1))
    wrong = [
        wrong_tokens(window, marks, rng(0, window.place.text)) for window, marks in zip(windows, like, strict=True)
    ]
    assert Counter(at for some in wrong for at in some) == Counter(peaks.tolist())
    assert all(a != b for a, b in zip(right, wrong, strict=True))
    assert wrong != [wrong_tokens(w, m, rng(0, 0)) for w, m in zip(windows, exchanged(windows, right, rng(1, "fuzzing", 1)), strict=True)]  # fmt: skip


def test_a_judge_that_looks_only_at_places_scores_chance(server: FakeJudge) -> None:
    random, texts = np.random.default_rng(3), list[str]()
    for text in natural_texts(300):
        words = [word for word in text.split() if word not in ANIMALS] + ["again"] * 8
        if random.random() < 0.3:
            words.insert(int(random.exponential(1.5)), str(random.choice(ANIMALS)))
        texts.append(" ".join(words[:8]))
    server.rule = lambda concept, text: int(0 <= text.find("<<") < 12)
    result = scored(judge_of(server), {0: TRUE[0]}, corpus=texts, fuzzing_texts=80)[0].metric("fuzzing")
    assert result.value == pytest.approx(0.5, abs=0.06) and result.details["recall"] > 0.7
    assert result.details["silent"] == pytest.approx(0.5, abs=0.15)
