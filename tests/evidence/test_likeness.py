"""How like texts are to a description: by words and by meaning, for descriptions of every kind, and never by what a feature does."""

import sys

import numpy as np
import pytest

from fade_lens import Corpus, Fade, InputError, MissingExtraError, Subject
from fade_lens._util.errors import StoreError
from fade_lens.evidence.likeness import Likeness, WordIndex
from fade_lens.evidence.negatives import Negatives
from fade_lens.evidence.windows import Evidence
from fade_lens.metrics.fade import MIN_TEXTS
from fade_lens.runs.presets import PAPER
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer

TEXTS = (
    "Come here, said the cat.",
    "There is nothing.",
    "written 2005-09-14 by hand",
    "黒猫が好きです",
    "Here HERE here",
    "",
    "😀 says nothing new",
    "a long text on colour, on the U.S. and on here and now",
)


def most_alike(description: str, texts=TEXTS) -> list[int]:
    """The texts that are like a description, the most alike first."""
    found = WordIndex(texts).likeness(description)
    return [int(i) for i in np.argsort(-found, kind="stable") if found[i] > 0]


@pytest.mark.parametrize(
    ("description", "texts"),
    [
        ('the word "here"', [0, 4, 7]),
        ("HERE", [0, 4, 7]),
        ('the abbreviation "U.S."', [0, 1, 7]),
        ("dates such as 1999-01-30", [2]),
        ("「猫」", [3]),
        ("😀", [6]),
        ("(nothing|*", [1, 6]),
        ("[a-z]+(?:", [2, 7]),
        ("", []),
        ('""', []),
        ("''' \" ' ”", []),
        ("zebras", []),
        ("\ud800\x00", []),
    ],
)
def test_texts_with_the_words_of_a_description_are_like_it(description, texts):
    assert sorted(most_alike(description)) == texts


def test_what_is_quoted_counts_more_than_all_other_words_together():
    texts = ["the word in the sense of formerly", "once", "word formerly sense", *["in the of"] * 20]
    assert most_alike('the word "once" in the sense of formerly', texts)[0] == 1


def test_rare_words_count_more_than_common_ones_and_neighbours_more_than_either():
    texts = ["the the the", "a zebra", "zebra crossing", "crossing a zebra", *["the"] * 9]
    assert most_alike("the zebra crossing", texts)[:3] == [2, 3, 1]


def test_a_phrase_never_runs_from_one_text_into_the_next():
    assert WordIndex(["a b", "c d"]).having(("b", "c")).tolist() == []
    assert WordIndex(["a b", "b a b"]).having(("a", "b")).tolist() == [0, 1]


def test_the_order_of_texts_changes_no_likeness():
    order = np.random.default_rng(0).permutation(len(TEXTS))
    shuffled = WordIndex([TEXTS[i] for i in order])
    for description in ('the word "here"', "nothing said by a cat", "1999-01-30"):
        assert np.allclose(shuffled.likeness(description), WordIndex(TEXTS).likeness(description)[order])


def test_no_texts_and_empty_ones_are_like_nothing():
    assert WordIndex([]).likeness("the cat").shape == (0,) and not WordIndex(["", " "]).likeness("the cat").any()


# --- In a run ------------------------------------------------------------------------------------------------------------------

MODEL, SAE = planted_model(), planted_sae()
SHOWN = 5
PLAIN = [text for text in natural_texts(900) if "river" not in text]
CORPUS = [*PLAIN[:300], *(f"{text} river" for text in PLAIN[300 : 300 + SHOWN]), *PLAIN[300 + SHOWN :]]
SMALL = {"rated_texts": 60, "synthetic_texts": 4, "factors": (), "interval_width": None}


def rivers(concept: str, text: str) -> int:
    return 2 * ("river" in text) if "river" in concept else rule(concept, text)


def make(server, **settings) -> Fade:
    return Fade(MODEL, SAE, corpus=Corpus.from_texts(CORPUS), judge=judge_of(server), **(SMALL | settings))


@pytest.fixture
def server():
    with FakeJudge(rule=rivers, writer=writer) as running:
        yield running


def subject() -> Subject:
    return Subject(MODEL, SAE, CORPUS, [0, 1])


def test_a_wrong_description_whose_concept_five_texts_show_has_three_of_them_rated(server):
    wrong = {0: "any river", 1: TRUE[1]}
    rated = {}
    for likely in ("none", "words"):
        evidence = make(server, likely_texts=likely).evaluate(wrong, progress=False)[0].rated_evidence
        rated[likely] = sum(text.rating == 2 for text in evidence.texts)
        assert len(evidence.texts) == 60 and sum(1 / t.inclusion for t in evidence.texts) == pytest.approx(len(CORPUS))
    assert rated["none"] < MIN_TEXTS and rated["words"] == SHOWN


def test_a_null_description_is_sampled_by_its_own_words(server):
    results = make(server).evaluate({0: "any river", 1: TRUE[1]}, nulls=("shuffled",), progress=False)
    [of_first] = [r for r in results.nulls["shuffled"] if r.description.text == "any river"]
    assert of_first.description.index == 1 and sum(t.rating == 2 for t in of_first.rated_evidence.texts) == SHOWN


@pytest.mark.parametrize("description", ["…", "¿?¡!", "🜁🜂", "[(*+?\\", '""', "zzz qqq"])
def test_a_description_without_a_word_of_the_corpus_is_rated_on_as_many_texts(server, description):
    [result] = make(server).evaluate({0: description}, progress=False)
    assert len(result.rated_evidence.texts) == 60


def test_a_corpus_smaller_than_the_sample_is_rated_whole(server):
    fade = make(server)
    few = Fade(MODEL, SAE, corpus=CORPUS[290:310], judge=fade.judge, **SMALL)
    [result] = few.evaluate({0: "any river"}, progress=False)
    assert [t.inclusion for t in result.rated_evidence.texts] == [1.0] * 20


def test_the_likeness_stands_in_a_runs_identity(server, tmp_path):
    results = make(server).evaluate({0: TRUE[0]}, store=tmp_path, progress=False)
    assert results.run.settings["likely_texts"] == "words" and PAPER["likely_texts"] == "none"
    asked = server.requests
    for other in ({"likely_texts": "none"}, {"likely_share": 0.2}):
        with pytest.raises(StoreError, match=rf"settings\.{next(iter(other))} was"):
            make(server, **other).evaluate({0: TRUE[0]}, store=tmp_path, progress=False)
    make(server).evaluate({0: TRUE[0]}, store=tmp_path, progress=False)
    assert server.requests == asked


def test_a_likeness_that_there_is_not_is_told():
    with pytest.raises(InputError, match="likely_texts is 'word'; give one of 'none', 'words', 'meaning'"):
        Fade(MODEL, SAE, corpus=CORPUS, likely_texts="word")


def test_without_the_extra_likeness_in_meaning_is_refused_before_anything_is_asked(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    monkeypatch.setattr("fade_lens.data.embedding.find_spec", lambda _: None)
    fade = make(server, likely_texts="meaning")
    for call in (fade.evaluate, fade.estimate):
        with pytest.raises(MissingExtraError, match=r"likely_texts='words' needs no extra.*fade-lens\[similarity\]"):
            call({0: TRUE[0]})
    assert server.requests == 0
    assert make(server).estimate({0: TRUE[0]}).calls, "by words nothing is missing"


def test_the_likeness_in_meaning_is_that_of_the_most_alike_window_and_embeds_what_negatives_embed(
    embedding, monkeypatch
):
    evidence = Evidence(subject())
    vectors = Negatives(evidence).vectors
    monkeypatch.setattr("fade_lens.evidence.negatives.embed", None)  # the windows are not embedded again
    found = Likeness(evidence, "meaning").to("a river")
    from fade_lens.data.embedding import embed

    windows = vectors @ embed(["a river"])[0]
    assert found is not None and found.shape == (len(CORPUS),)
    for text in (0, 17, len(CORPUS) - 1):
        assert found[text] == windows[evidence.grid.text == text].max()


@pytest.mark.parametrize("by", ["words", "meaning"])
def test_the_texts_of_a_role_are_as_alike_as_among_all(embedding, by):
    evidence = Evidence(subject())
    whole, part = (Likeness(evidence, by, role).to("any river") for role in (None, "test"))
    assert np.array_equal(part, whole[evidence.texts("test")]) and 0 < len(part) < len(whole)


def test_no_likeness_is_told_where_none_is_asked_for():
    assert Likeness(Evidence(subject()), "none").to("any river") is None


def test_held_out_texts_are_sampled_by_likeness_too(server):
    [result] = make(server).evaluate({0: "any river"}, held_out=True, progress=False)
    there = sum("river" in CORPUS[i] for i in Evidence(Subject(MODEL, SAE, CORPUS, [0])).texts("test"))
    assert sum(t.rating == 2 for t in result.rated_evidence.texts) == there > 0
