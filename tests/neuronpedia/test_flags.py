"""Every flag on labels such as Neuronpedia really holds, and none on good ones."""

import pandas as pd
import pytest

from fade_lens import neuronpedia
from fade_lens.neuronpedia.flagging import KINDS, TESTS, kinds_of, mismatches, saelens_config
from fade_lens.neuronpedia.frames import frame
from fade_lens.neuronpedia.records import Imported, Row, Score, Stats, row_of
from tests.demo_rules import PATTERNS
from tests.tiny import tiny_sae


def flagged(*rows, stats=None, complete=False, indices=None, **options):
    """The kinds of flags of some `Row`s (or texts, of feature 0 and up)."""
    given = tuple(row if isinstance(row, Row) else Row(at, row) for at, row in enumerate(rows))
    table = frame(Imported(rows=given, complete=complete), indices)
    return [kinds_of(flags) for flags in neuronpedia.flags(table, stats=stats, **options)["flags"]]


def test_every_flag_of_the_list_has_a_test():
    assert set(TESTS) == set(KINDS) and len(KINDS) == 14


GOOD = [
    *PATTERNS,
    "phrases related to time and duration",
    "references to specific people's names in news articles about football",
    " the word 'new' and related forms indicating novelty",
    "mentions of the United States government",
    "punctuation at the end of questions",
    "conditional statements in Python code, particularly `if not`",
    "words indicating uncertainty or possibility",
    "the user interface of a website",
    "wants and desires",
    "explanations of scientific phenomena",
    "text discussing self-driving cars",
    "numbers between 1900 and 1999",
]


# Of many languages, and of special tokens: what has no blank is not one token, and what names a marker is no leak.
GOOD_ELSEWHERE = [
    *(
        "动词",
        "表示时间的词语",
        "猫的名字",
        "单词「猫」",
        "“新”字",
        "法律文件中的条款",
        "文本开头的<|endoftext|>",
        "<bos>标记",
        "表情符号😀",
    ),
    *("動詞", "日本語の助詞「は」", "プログラミング", "料理のレシピに出てくる材料", "動詞", "数学"),
    *("คำกริยา", "แมว", "คำว่า 'ไม่' ในประโยคปฏิเสธ", "ພາສາລາວ", "ពាក្យស្តីពីពេលវេលា", "ကြိယာ", "འབྲེལ་སྒྲ།"),
    *(
        "동사",
        "과일 이름",
        "조사 '를'",
        "사과라는 단어",
        "नाम",
        "मौसम से जुड़े शब्द",
        "أسماء المدن",
        "شهر",
        "שמות של ערים",
        "עיר",
    ),
    *(
        "глаголы движения",
        "λέξεις για τον καιρό",
        "noms de villes",
        "Fußballvereine",
        "từ chỉ thời gian",
        "kitap isimleri",
    ),
    *(
        "<bos>",
        "<s>",
        "</s>",
        "<|endoftext|>",
        "[CLS]",
        "[INST]",
        "<pad>",
        "the <start_of_turn> token",
        "the <|endoftext|> token",
    ),
    *(
        "the <|im_start|>assistant marker",
        "<|im_end|> at the end of a turn",
        "<think> tags that open a reasoning block",
    ),
    *(
        "tokens after </think>",
        "text before <|endoftext|>",
        "le jeton <|endoftext|> en début de texte",
        "das <bos>-Token",
    ),
    *(
        "first-person statements like I am or I think",
        "obligation, such as we need to",
        "combining accents: é, ñ, ü",
        "emoji 😀",
    ),
]


@pytest.mark.parametrize("text", [*GOOD, *GOOD_ELSEWHERE])
def test_good_labels_have_none(text):
    assert flagged(text) == [()]


def test_missing_is_not_never_looked_up():
    assert flagged(Row(1, "cats on mats"), complete=True, indices=[1, 2]) == [(), ("missing",)]
    assert flagged(Row(1, "cats on mats"), complete=False, indices=[1, 2]) == [(), ()]


@pytest.mark.parametrize("text", ["", "  ", "N/A", "none", "null", "nan", "undefined", "...", '""', "No explanation."])
def test_empty(text):
    assert flagged(text) == [("empty",)]


@pytest.mark.parametrize(
    "text",
    [
        "MAX_ACTIVATING_TOKENS are mostly 'the', TOKENS_AFTER_MAX_ACTIVATING_TOKEN vary",
        "TOP_POSITIVE_LOGITS: ['cat', 'dog']. Method 3: animals",
        "The user wants a short explanation of the neuron. The tokens are months",
        "months. Self-correction: the prompt says no more than five words",
        "Okay, let's look at the texts. They all hold dates",
        "<think>\nThe activating texts are about cats",
        "Let me analyze the top activating texts",
        "I need to find what is common to these tokens",
        "Explanation: months of the year",
        "Explanation of neuron 4 behavior: the main thing this neuron does is find months",
        "As an AI language model, I cannot tell",
        "We need to produce a concise explanation: months",
        "<|im_start|>assistant\nmonths of the year<|im_end|>",
        "months of the year<|im_end|>",
        "months of the year.<|eot_id|>",
        "months of the year<end_of_turn>",
        "months</s>",
        "猫的名字。<|im_end|>",
        "<|channel|>analysis<|message|>Months are named",
        "<|start_header_id|>assistant<|end_header_id|>\n\nmonths",
        "<start_of_turn>model\nmonths",
        "<think>Okay the tokens are months</think>\nmonths",
        "It is about months.</think>\n\nmonths of the year",
        "months like January. Self-correction: the prompt says no more",
        "I think this feature fires on 猫",
    ],
)
def test_prompt_leak(text):
    assert "prompt_leak" in flagged(text)[0]


def test_overlong():
    assert flagged("cats " * 102) == [()] and "overlong" in flagged("cats " * 103)[0]


def test_single_token_fallback():
    assert flagged("the", '"of"', "▁ing", "Ġ(", "42", ";", "的", "は") == [("single_token_fallback",)] * 8
    made = "np_max-act-logits"
    assert flagged(Row(1, "表示时间的词语", type_name=made), Row(2, "<bos>", type_name=made)) == [(), ()]
    assert flagged(Row(1, "<bos>"), stats={1: Stats(top_token="<bos>")}) == [()]
    assert flagged("Iraq", "photosynthesis") == [(), ()]
    assert flagged(Row(1, "Iraq", type_name="np_max-act-logits")) == [("single_token_fallback",)]
    stats = {1: Stats(top_token=" Iraq")}  # the token that fires most, and nothing else
    assert flagged(Row(1, "iraq"), stats=stats) == [("single_token_fallback",)]


def test_negative_dense_and_dead():
    stats = {
        0: Stats(0.01, 5.0, -0.5),
        1: Stats(0.35, 5.0, 0.0),
        2: Stats(0.0, 0.0, 0.0),
        3: Stats(None, 0.0),
        4: Stats(0.01, 0.0, -2.0),
        5: Stats(0.1, 2.0),
    }
    found = flagged(*[f"label of kind {n}{n}" for n in "abcdef"], stats=stats)
    assert found == [("negative_activations",), ("dense",), ("dead",), ("dead",), ("negative_activations",), ()]


def test_duplicates_within_the_source_and_of_one_feature():
    rows = [
        Row(1, "names of cats"),
        Row(2, "“Names”  of Cats."),
        Row(3, "names of dogs"),
        Row(3, "names of dogs"),
        Row(4, "birds"),
    ]
    assert flagged(*rows) == [("duplicate_description",)] * 4 + [()]
    table = neuronpedia.flags(frame(Imported(rows=tuple(Row(i, "names of cats") for i in range(9)))))
    assert table["flags"][0] == ("duplicate_description: the same as of features 1, 2, 3, 4, 5 and 3 more",)


@pytest.mark.parametrize(
    "text",
    [
        "various words and phrases",
        "text",
        "common words in English",
        "references to different topics",
        "tokens related to specific concepts",
        "words or phrases in a wide range of contexts",
        "miscellaneous terms",
    ],
)
def test_generic(text):
    assert flagged(text) == [("generic",)]


def test_mixed_explainers_flag_the_few():
    rows = [
        Row(i, f"label {i} of cats", explanation_model_name="gpt-4o-mini", type_name="oai_token-act-pair")
        for i in range(3)
    ]
    other = Row(9, "of dogs", explanation_model_name="gemini-2.0-flash", type_name="np_acts-logits-general")
    assert flagged(*rows, other) == [(), (), (), ("mixed_explainer_in_source",)]
    assert flagged(*rows) == [()] * 3
    assert flagged(*rows, Row(9, "of dogs")) == [()] * 4  # who wrote it is not told


def test_stale_scores():
    def row(score, created="2026-03-01T00:00:00.000Z"):
        return Row(1, "names of cats", created_at=created, scores=(score,))

    assert flagged(row(Score("eleuther_fuzz", 0.8, created_at="2026-02-01T00:00:00.000Z", detailed=True))) == [
        ("stale_score",)
    ]
    assert flagged(row(Score("eleuther_fuzz", 0.8, created_at="2026-04-01T00:00:00.000Z", detailed=True))) == [()]
    assert flagged(row(Score("recall_alt", 0.0))) == [("stale_score",)]  # may be a failed run
    assert flagged(row(Score("recall_alt", 0.0, detailed=True))) == [()]


def test_index_out_of_range_and_another_sae():
    assert flagged(Row(63, "of cats"), Row(64, "of dogs"), n_features=64) == [(), ("index_out_of_range",)]
    assert flagged("names of cats", mismatch="d_sae is 5 there, 64 here") == [("sae_mismatch",)]


def test_what_tells_saes_apart():
    sae = tiny_sae(d_sae=64)
    ours = {"d_sae": 64, "d_in": 32, "metadata": {"hook_name": "blocks.0.hook_resid_post", "prepend_bos": True}}
    assert mismatches(Imported(config={"saelensConfig": ours}), sae) == ""
    assert mismatches(Imported(config={}), sae) == "" and saelens_config({"saelensConfig": "not JSON"}) == {}
    theirs = '{"d_sae": 24576, "hook_name": "blocks.8.hook_resid_pre"}'
    said = mismatches(Imported(config={"saelensConfig": theirs}), sae)
    assert "d_sae is 24576 there, 64 here" in said and "hook_name is blocks.8.hook_resid_pre there" in said


def test_hostile_labels_are_only_text():
    for text in ("<script>alert(1)</script> cats", "=cmd|' /C calc'!A0", "\u202eabc cats"):
        assert isinstance(flagged(text)[0], tuple)
    half = row_of({"index": 1, "description": "\ud800 cats"}, "line 1")  # half a character, which JSON may hold
    assert flagged(half) == [()] and half.description == "? cats"
    many = pd.concat([frame(Imported(rows=(Row(1, "a" * 200_000),)))])
    assert kinds_of(neuronpedia.flags(many)["flags"].iloc[0])[0] == "overlong"


@pytest.mark.timeout(200)  # quadratic work would take hours
@pytest.mark.parametrize("piece", ["“", " '", "a\u200f\x00", "MAX_", "The user ", "[", "Wait, ", "\u202e\x1b]0;", "I "])
def test_a_megabyte_of_anything_is_flagged_at_once(piece):
    text = piece * (1_000_000 // len(piece))
    assert "overlong" in flagged(text)[0]


@pytest.mark.timeout(200)  # quadratic work would take hours
def test_half_of_a_source_with_one_text():
    rows = [Row(i, "code" if i % 2 else f"names of cats {i}") for i in range(2000)]
    table = neuronpedia.flags(frame(Imported(rows=tuple(rows))))
    assert table["flags"][7] == ("duplicate_description: the same as of features 1, 3, 5, 9, 11 and 994 more",)
    assert table["flags"][1999][0].endswith("features 1, 3, 5, 7, 9 and 994 more") and table["flags"][8] == ()
