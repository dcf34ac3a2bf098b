"""Words in scripts with and without blanks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fade_lens._util.wording import occurrence, quoted, same_words


@pytest.mark.parametrize(
    "string, text, found",
    [
        ("猫", "黒猫がいる", ""),
        ("経済", "日本経済新聞を読む", ""),
        ("新", "新闻", ""),
        ("は", "私は学生です", ""),
        ("ไม่", "ฉันไม่รู้", ""),
        ("ពេល", "នៅពេលនេះ", ""),
        ("AI", "生成AIの時代", ""),
        ("AI", "生成AIMEの時代", "AIME"),
        ("사과", "사과를 먹었다", ""),
        ("사과", "풋사과", "풋사과"),
        ("كتاب", "قرأت الكتاب أمس", ""),
        ("كتاب", "وبالكتاب", ""),
        ("ספר", "קראתי את הספר", ""),
        ("ספר", "מספרים", "מספרים"),
        ("नय", "नया साल", "नया"),
        ("नया", "नया साल", ""),
        ("café", "un cafe\u0301 noir", ""),
        ("cafe", "un cafe\u0301 noir", None),
        ("сад", "В САДУ и посадка", "САДУ"),
        ("сад", "сад цветёт", ""),
        ("❤", "I ❤\ufe0f it", ""),
        ("👩", "👩\u200d💻", "👩\u200d💻"),
        ("👍", "👍🏽 good", ""),
        ("new", "renewed newest", "newest"),
        ("new", "一个new东西", ""),
        ("Straße", "Hauptstraße", "Hauptstraße"),
        ("U.S.", "the U.S.-based firm", ""),
        ("!", "Come in!", ""),
        ("猫", "犬", None),
    ],
)
def test_where_a_string_is_a_word_of_its_own(string, text, found):
    assert occurrence(string, text) == found


@given(st.text(min_size=1, max_size=4), st.text(max_size=20), st.text(max_size=20))
def test_a_string_that_is_there_is_found_in_any_script(string, before, after):
    inside = occurrence(string, before + string + after)
    assert inside == "" or inside is None or len(inside) >= 1
    if string.isascii() and string.isalpha():
        assert inside is not None


@pytest.mark.parametrize(
    "text",
    [
        'the word "猫"',
        "the word “猫”",
        "「猫」という言葉",
        "单词《猫》",
        "das Wort „猫“",
        "le mot « 猫 »",
        "单词'猫'的",
        "`猫`",
    ],
)
def test_quotes_of_many_languages(text):
    assert quoted(text) == ["猫"]


@pytest.mark.parametrize(
    "one, other",
    [
        ("names of cats", "Names of  CATS."),
        ('the word "new"', "the word 'new'"),
        ("the word “new”", "the word new"),
        ("cats, dogs and cows", "cats dogs and cows"),
        ("self-driving cars", "self driving cars"),
        ("ＡＢＣ", "abc"),
        ("猫の名前。", "猫の名前"),
        ("STRASSE", "straße"),
        ("The word “here”.", "the word 'here'"),
        ("- the word **here**!", "the word here"),
        ("the word (here)", "the word ‹here›"),
        ("1. it´s\u200b here;", "it’s here"),
        ("हिंदी शब्द।", "हिंदी शब्द"),
        ("हिंदी।", "हिंदी"),
        ("الكلمة «هنا»،", "الكلمة هنا"),
        ("המילה ״שם״.", "המילה שם"),
        ("từ “đây”.", "từ đây"),
        ("İstanbul", "istanbul"),
        ("「猫」。", "猫"),
        ("party 🎉!", "party 🎉"),
    ],
)
def test_what_says_the_same(one, other):
    assert same_words(one) == same_words(other)


@pytest.mark.parametrize(
    "one, other",
    [
        ('the mark "!"', 'the mark "?"'),
        ('the mark "."', 'the mark ","'),
        ("the symbol !", "the symbol ?"),
        ("C++", "C"),
        ("cats", "dogs"),
        ("don't", "do"),
        ("C++.", "C#."),
        ("the '*' sign", "the '+' sign"),
        ("😀", "🎉"),
        ("the list [0]", "the list"),
        ("猫", "犬"),
    ],
)
def test_what_differs_in_a_sign_that_matters(one, other):
    assert same_words(one) != same_words(other)


@pytest.mark.parametrize(
    "string, text",
    [("don't", "I don’t go"), ("كتاب", "هذا كِتابٌ جديد"), ("שלום", "שָׁלוֹם לך"), ("İstanbul", "istanbul"), ("बच्चा", "यह बच्चा है।"), ("\u0650", "كِتاب")],
)  # fmt: skip
def test_a_word_is_found_with_other_apostrophes_and_vowel_points(string, text):
    assert occurrence(string, text) is not None and (len(string) == 1 or occurrence(string, text) == "")
