"""Ten planted latents whose rules are known: an explainer that goes by what is marked finds them, and detection says that it did."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from fade_lens import Answer, Fade, Judge, Request
from fade_lens.analysis.planted import planted_latents
from tests.tiny import WORDS, tiny_model, word_tokenizer

CLASSES = [
    {"cat"}, {"dog", "fox"}, {"red", "green", "blue"}, {"runs"}, {"eats", "sees"}, {"house", "tree", "river"}, {"big"}, {"old", "new"},
    {"today"}, {"owl", "cow", "horse"},
]  # fmt: skip
MARKED = re.compile(r"<<(\w+)>>")


def named(words: set[str]) -> str:
    return f"the word{'s' * (len(words) > 1)} {', '.join(map(repr, sorted(words)))}"


class CommonestMarked:
    """A language model that explains by the commonest marked words, and finds a quoted word in a text."""

    name = "commonest marked"

    async def ask(self, request: Request) -> Answer:
        if request.kind == "explain":
            found = Counter(MARKED.findall(request.messages[-1]["content"]))
            words = {word for word, n in found.items() if n >= 0.1 * found.total()}
            return Answer(json.dumps({"description": named(words) if words else ""}))
        if request.kind == "write":
            return Answer(json.dumps({"texts": ["the house"] * request.parts}))
        words = set(re.findall(r"'(\w+)'", request.concept))
        found = [{"id": name, "rating": int(bool(words & set(text.split())))} for name, text in request.texts.items()]
        return Answer(json.dumps({"ratings": found}))


@pytest.mark.parametrize("explainer", ["one-shot", "tfidf"])
def test_the_right_rule_of_planted_latents_is_found(explainer: str) -> None:
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS[:-2], random.integers(4, 9))) for _ in range(600)]
    model, ids = tiny_model(n_layers=1), word_tokenizer().get_vocab()
    sae = planted_latents(model, [[ids[word] for word in words] for words in CLASSES], texts)
    with Judge(CommonestMarked(), price=(0.0, 0.0)) as judge:
        fade = Fade(model, sae, corpus=texts, judge=judge, detection_texts=40)
        explained = fade.explain("0:10", explainer=explainer, progress=False)
        results = fade.evaluate(explained, scorers=["detection"], nulls=["shuffled"], progress=False)
    words = {d.index: set(re.findall(r"'(\w+)'", d.text)) for d in explained}
    right = [index for index, rule in enumerate(CLASSES) if words.get(index) == rule]
    assert len(right) >= 9
    scores = {r.description.index: r.metric("detection").value or 0.0 for r in results}
    assert all(scores[index] == 1.0 for index in right)
    assert max(r.metric("detection").value or 0.0 for r in results.nulls["shuffled"]) < 0.8
