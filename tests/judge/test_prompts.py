"""Prompts: this project's own and the user's, read back from what is asked."""

import random

from fade_lens.judge.prompts import Prompts, read_rating

OURS = Prompts()


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
