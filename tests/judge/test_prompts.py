"""Prompts: this project's own and the user's, read back from what is asked."""

import hashlib
import json
import random

import pytest
from typer.testing import CliRunner

from fade_lens import Fade, InputError, StoreError
from fade_lens.cli import app
from fade_lens.judge import Judge, MemoryTranscripts, Prompts
from fade_lens.judge.log import Entry
from fade_lens.judge.prompts import read_rating
from fade_lens.runs.store import RunStore, read_transcripts
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, natural_texts, planted_model, planted_sae, rule, writer

OURS = Prompts()
OWN = Prompts(
    rating="Bewerte jede Probe: 2 klar, 1 teilweise, 0 gar nicht. {{So}} und {nicht so}.",
    rating_request="Nummern ({ids}), und {ids} noch einmal.",
    writing="Schreibe Proben.",
    writing_request="Reihe {set} (nochmals: {set}): {n} Proben (etwa {length}).",
    lengths=("kurz", "lang"),
    single="Antworte mit Yes oder No.",
    single_question="{concept}? {text}",
    single_examples=(("Es regnet.", "Wetter", "Yes"),),
)
TEXTS = ["a cat", "no {ids} here", "{text} a cat {concept}"]


def test_prompts_can_be_read_back_and_leak_no_id() -> None:
    samples = {"482": "one\n\ntwo", "193": ""}
    messages = OURS.rating_messages("a <tag> 'x'", samples, tag=731)
    assert read_rating(messages) == ("a <tag> 'x'", samples)
    assert OURS.read_writing(messages) is None
    written = OURS.writing_messages("c", 7, variation=3, tag=5, rng=random.Random(0))
    assert OURS.read_writing(written) == ("c", 7, 3) and read_rating(written) is None
    # An example with ids in the instructions is what makes judges invent them.
    assert not [number for number in range(10, 1000) if f'"{number}"' in messages[0]["content"]]


def test_sets_of_one_concept_differ() -> None:
    def user(variation: int) -> str:
        return OURS.writing_messages("c", 10, variation=variation, tag=5, rng=random.Random(variation))[-1]["content"]

    assert len({user(variation) for variation in range(1, 9)}) == 8


def test_the_default_prompts_are_the_ones_that_stored_answers_were_given_to() -> None:
    """A change of their wording changes `VERSION`, and the numbers that were measured with them."""
    concept = 'the word "so", not {n}'
    chats = [
        OURS.rating_messages(concept, {"482": "a {ids} b", "193": ""}, tag=731),
        OURS.writing_messages(concept, 7, variation=3, tag=5, rng=random.Random(0)),
        OURS.single_messages(concept, "so it {text} is"),
    ]
    hashes = [hashlib.sha256(json.dumps(chat).encode()).hexdigest()[:16] for chat in chats]
    assert hashes == ["cab4b4ce41d12aac", "8a4daf14379791f8", "c62675bbadd0abdf"]
    assert OURS.identity == "1"


def test_own_prompts_are_asked_and_read_back_with_the_log() -> None:
    samples = {"482": "one {ids}", "193": "two"}
    chat = OWN.rating_messages("the {n} cat", samples, tag=731)
    assert chat[0]["content"].startswith(OWN.rating) and '{"ratings": [{"id": ID' in chat[0]["content"]
    assert chat[1]["content"].endswith("Nummern (482, 193), und 482, 193 noch einmal.")
    assert read_rating(chat) == ("the {n} cat", samples)
    answer = {"content": '{"ratings": [{"id": "482", "rating": 2}, {"id": "193", "rating": 0}]}'}
    assert Entry({"kind": "rate", "messages": chat}, answer).texts == [("2", "one {ids}"), ("0", "two")]
    written = OWN.writing_messages("c {set}", 7, variation=3, tag=5, rng=random.Random(0))
    assert OWN.read_writing(written) == ("c {set}", 7, 3) and OURS.read_writing(written) is None
    assert '{"texts": [TEXT' in written[0]["content"]
    assert OWN.single_messages("cat", "a {notes}")[-1]["content"] == "cat? a {notes}"


@pytest.mark.parametrize("rating", ["batched", "single"])
def test_a_judge_asks_in_own_prompts_alone(rating) -> None:
    with FakeJudge(asked_in=OWN) as fake, Judge("m", base_url=fake.base_url, rating=rating, prompts=OWN) as judge:
        judge.check()
        assert [r.value for r in judge.rate("the word 'cat'", TEXTS)] == [2, 0, 2]
        assert len(judge.write("the word 'cat'", n_texts=15).texts) == 15
        assert judge.beside(f"{fake.base_url}#other").prompts == OWN
        said = [body["messages"][0]["content"] for body in fake.bodies]
        assert all(text.startswith((OWN.rating, OWN.writing, OWN.single)) for text in said)


def test_a_changed_prompt_is_another_question() -> None:
    kept = MemoryTranscripts()
    with FakeJudge() as fake, Judge("m", base_url=fake.base_url) as ours:
        with ours.session(kept):
            ours.rate("the word 'cat'", TEXTS)
        with Judge("m", base_url=fake.base_url, prompts=Prompts(rating="Other rules.")) as other:
            with other.session(kept):
                other.rate("the word 'cat'", TEXTS)
            assert (other.usage.calls, other.usage.cached) == (1, 0)
            assert other.identity["prompts"] == {"version": "1", "rating": "Other rules."}
        with Judge("m", base_url=fake.base_url, prompts=Prompts()) as same, same.session(kept):
            same.rate("the word 'cat'", TEXTS)
            assert (same.usage.calls, same.usage.cached) == (0, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"rating": "Rate {concept}: 0, 1, 2"},
            r"rating holds \{concept\}, but nothing is filled in there; leave it out",
        ),
        ({"rating_request": "Rate them all."}, r"rating_request lacks \{ids\}; put it where"),
        (
            {"writing_request": "Write {n} of {sets}, set {set}"},
            r"holds \{sets\}, but only \{leaning\}, \{length\}, \{n\}, \{set\}",
        ),
        ({"writing_request": "Write texts, set {set}"}, r"lacks \{n\}"),
        ({"single_question": "Is it in {text}?"}, r"lacks \{concept\}"),
        ({"writing": " "}, "writing is ' '; give a text that is not empty"),
        ({"rating": "half a \ud83d"}, "give a text"),
        ({"lengths": ()}, "at least one text"),
        ({"leanings": ("news", "")}, "at least one text, none of them empty"),
        ({"single_examples": (("a text", "a concept", "maybe"),)}, "'Yes' or 'No'"),
    ],
)
def test_prompts_that_cannot_be_asked_are_told_at_once(given, said) -> None:
    with pytest.raises(InputError, match=said):
        Prompts(**given)


def test_a_file_of_prompts(tmp_path) -> None:
    path = tmp_path / "prompts.toml"
    path.write_text(
        'rating = "Ä: 2, 1, 0"\nlengths = ["short"]\nsingle_examples = [["a", "b", "No"]]\n', encoding="utf-8"
    )
    assert Prompts.load(path) == Prompts(rating="Ä: 2, 1, 0", lengths=("short",), single_examples=(("a", "b", "No"),))
    path.write_text("single_examples = []")
    assert Prompts.load(path).single_messages("c", "t")[1]["role"] == "user"
    for content, said in (
        ('ratings = "x"', "has the key 'ratings'; did you mean 'rating'"),
        ('[rating]\nrules = "x"', "rating is {'rules': 'x'}; give a text"),
        ("rating = 3", "rating is 3; give a text"),
        ('lengths = "short"', "lengths is 'short'; give at least one text"),
        ("leanings = []", "at least one text"),
        ('leanings = ["a", 2]', "at least one text"),
        ('single_examples = ["Yes"]', "for each example"),
        ('single_examples = [["a", "b"]]', "for each example"),
        ('single_examples = "Yes"', "for each example"),
        ("rating = ", "is no TOML file in UTF-8"),
        ("x" * (1 << 18) + "x", "is larger than 256 KiB"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=said):
            Prompts.load(path)
    path.write_bytes(b'rating = "\xff"')
    with pytest.raises(InputError, match="no TOML file in UTF-8"):
        Prompts.load(path)
    for missing in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            Prompts.load(missing)


def test_a_run_holds_its_prompts_and_another_wording_is_another_run(tmp_path) -> None:
    settings = {"prompts": 4, "prompt_tokens": 4, "new_tokens": 4, "rated_texts": 30, "synthetic_texts": 10}
    with FakeJudge(rule, writer, asked_in=OWN) as fake:

        def run(store, prompts):
            with Judge("m", base_url=fake.base_url, prompts=prompts) as judge:
                fade = Fade(planted_model(), planted_sae(), corpus=natural_texts(), judge=judge, **settings)
                return fade.evaluate({0: TRUE[0]}, store=store, progress=False)

        results = run(tmp_path / "run", OWN)
        assert results.run.judge.identity["prompts"]["rating"] == OWN.rating
        asked = fake.requests
        assert run(tmp_path / "run", OWN).frame["clarity"].tolist() == results.frame["clarity"].tolist()
        assert fake.requests == asked
        with pytest.raises(StoreError, match=r"judge\.prompts\.rating was 'Bewerte jede Probe") as refused:
            run(tmp_path / "run", None)
        assert len(str(refused.value)) < 1500
    entries = [Entry(*pair) for pair in read_transcripts(tmp_path / "run")]
    assert {entry.kind for entry in entries} == {"rate", "write"} and not any(entry.failure for entry in entries)
    with RunStore(tmp_path / "run") as store:
        assert store.get_meta("identity")["judge"]["prompts"]["lengths"] == ["kurz", "lang"]


def test_the_command_line_takes_a_file_of_prompts_and_tells_of_a_bad_one_first(tmp_path) -> None:
    path = tmp_path / "prompts.toml"
    path.write_text('rating_request = "Rate them."')
    (tmp_path / "d.csv").write_text("index,description\n0,cats\n")
    command = [
        "evaluate",
        "--model",
        "gpt2-small",
        "--hook",
        "blocks.0.mlp.hook_post",
        "--descriptions",
        str(tmp_path / "d.csv"),
    ]
    command += ["--corpus", "demo", "--judge", "http://127.0.0.1:9/v1#m", "--out", str(tmp_path / "run")]
    with pytest.raises(InputError, match=r"rating_request lacks \{ids\}"):
        CliRunner().invoke(app, [*command, "--judge-prompts", str(path)], catch_exceptions=False, standalone_mode=False)
