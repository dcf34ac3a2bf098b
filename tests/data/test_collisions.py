"""Features that share a description: found by words and by meaning, as pairs, groups, a share and a flag."""

from typing import Any

import numpy as np
import pytest

from fade_lens import Description, Explanations, InputError, MissingExtraError
from fade_lens.data.collisions import collisions


def described(texts: dict[int, str]) -> list[Description]:
    return [Description(index, text) for index, text in texts.items()]


def test_descriptions_that_differ_in_case_punctuation_or_blanks_are_shared() -> None:
    found = collisions(
        described({3: "Names of  animals.", 40: "names of animals", 12: "“names of animals”", 5: "colours", 6: "."})
    )
    assert found.indices == (3, 12, 40) and found.groups == ((3, 12, 40),) and found.share == 3 / 5
    assert found.others(12) == (3, 40) and found.others(5) == found.others(99) == ()
    assert found.flag(12) == "collides: with 3, 40" and found.flag(5) is None
    assert found.frame.to_dict("records") == [{"n_features": 3, "features": "3, 12, 40", "descriptions": "Names of  animals."}]  # fmt: skip
    assert repr(found) == "Collisions(3 of 5 features (60%) in 1 groups)"


def test_a_flag_names_a_few_of_many() -> None:
    assert collisions(described(dict.fromkeys(range(9), "x"))).flag(0) == "collides: with 1, 2, 3, 4, 5 and 3 more"


def test_a_feature_described_twice_does_not_collide_with_itself() -> None:
    twice = [*described({1: "animals"}), *described({1: "Animals."})]
    assert collisions(twice).share == 0 and collisions([]).share is None
    assert collisions([*twice, *described({1: "cats", 2: "cats"})]).indices == (1, 2)


def test_rules_are_the_same_in_any_order_and_not_with_other_strengths() -> None:
    rules = [("a", 5), ("b", 2)], [("b", 2), ("a", 5)], [("a", 2), ("b", 5)]
    found = collisions(Description(i, str(i), rules=tuple(some)) for i, some in enumerate(rules))
    assert found.groups == ((0, 1),)


@pytest.fixture
def by_length(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Texts are the nearer in meaning the nearer their lengths: a character is a tenth of a radian."""
    embedded: list[int] = []

    def embed(texts: list[str], *_: Any) -> Any:
        embedded.append(len(texts))
        angles = np.array([len(text) for text in texts]) / 10
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    monkeypatch.setattr("fade_lens.data.collisions.embed", embed)
    monkeypatch.setattr("fade_lens.data.embedding.find_spec", lambda _: True)
    return embedded


@pytest.mark.parametrize("chunk", [1, 2, 4096])
def test_near_descriptions_are_shared_where_asked_for(
    by_length: list[int], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fade_lens.data.collisions.CHUNK", chunk)
    some = described({0: "a", 1: "bb", 2: "ccc", 3: "c" * 12, 4: "A."})
    found = collisions(some, near=float(np.cos(0.1)))
    assert found.groups == ((0, 1, 2, 4),) and found.share == 4 / 5
    assert found.others(1) == (0, 2, 4) and found.others(0) == (1, 4), "2 is near to 1 and not to 0"
    assert collisions(some).groups == ((0, 4),) and collisions(some, near=1).groups == ((0, 4),)
    assert by_length == [4, 4], "each label once, and none where it is not asked for"


@pytest.mark.parametrize("near", [0, 1.5, float("nan")])
def test_a_cosine_that_cannot_be_is_told(near: Any) -> None:
    with pytest.raises(InputError, match=r"near is .*; give a cosine above 0 and at most 1"):
        collisions([], near)


def test_what_near_needs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fade_lens.data.embedding.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="similarity"):
        Explanations.of({1: "a", 2: "a"}).collisions(near=0.9)
    assert Explanations.of({1: "a", 2: "A"}).collisions().share == 1


def made(texts: dict[int, str]) -> Explanations:
    return Explanations.of(texts)


def shares(found: Explanations) -> tuple[float, float, int]:
    told = found.run["collisions"]
    return told["share_before"], told["share_after"], told["replaced"]


@pytest.mark.parametrize(
    ("new", "kept", "after"),
    [
        ({0: "cats", 1: "dogs"}, {0: "cats", 1: "dogs"}, 0),
        ({0: "cats", 1: "Cats"}, {0: "x", 1: "x"}, 2 / 3),
        ({0: "cats", 1: "X."}, {0: "cats", 1: "x"}, 0),
        ({0: "Y", 1: "dogs"}, {0: "x", 1: "dogs"}, 0),
        ({0: "y", 1: "y"}, {0: "x", 1: "x"}, 2 / 3),
        ({}, {0: "x", 1: "x"}, 2 / 3),
        ({0: "cats", 1: "dogs", 2: "other", 7: "new"}, {0: "cats", 1: "dogs"}, 0),
    ],
)  # fmt: skip
def test_a_new_description_stays_only_where_it_is_better_off(new: Any, kept: Any, after: float) -> None:
    old = made({0: "x", 1: "x", 2: "y"})
    found = old.untangled(made(new) if new else Explanations(()))
    assert {d.index: d.text for d in found} == {**kept, 2: "y"}
    assert shares(found)[:2] == (2 / 3, after) and [row.index for row in found.rows] == [0, 1, 2]


def test_a_group_that_falls_in_two_is_better_off_though_its_share_is_the_same() -> None:
    found = made(dict.fromkeys(range(4), "x")).untangled(made({0: "a", 1: "a", 2: "b", 3: "b"}))
    assert shares(found) == (1, 1, 4) and found.collisions().groups == ((0, 1), (2, 3))


def test_taking_one_back_takes_back_what_rests_on_it() -> None:
    # 2 takes the label that 0 leaves; 0 must take it again, for its new one is that of 9.
    found = made({0: "x", 1: "x", 2: "z", 3: "z", 9: "y"}).untangled(made({0: "y", 1: "w", 2: "x", 3: "v"}))
    assert {d.index: d.text for d in found} == {0: "x", 1: "w", 2: "z", 3: "v", 9: "y"} and shares(found)[1] == 0


def test_a_near_label_is_no_gain(by_length: list[int]) -> None:
    old, new = made({0: "x", 1: "x"}), made({0: "yy", 1: "zzz"})
    assert shares(old.untangled(new)) == (1, 0, 2)
    assert shares(old.untangled(new, near=float(np.cos(0.1)))) == (1, 1, 0) and by_length == [3]


def test_several_explanations_of_a_feature_are_told() -> None:
    both = made({0: "a", 1: "b"}) + made({0: "c"})
    with pytest.raises(InputError, match="feature 0 has 2 explanations; give those of one explainer"):
        both.untangled(made({0: "d"}))
    assert (made({0: "a", 1: "b"}) + made({1: "a"})).frame["flags"].tolist() == ["collides: with 1", "collides: with 0", "collides: with 0"]  # fmt: skip
