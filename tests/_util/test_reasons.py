"""Reasons and flags are told apart by their codes, whatever their words."""

import copy
import pickle

import pytest

from fade_lens import Metric
from fade_lens._util.reasons import Flag, Reason
from fade_lens._util.record import from_plain, to_plain


@pytest.mark.parametrize("made", [Reason("overflow", "not finite"), Flag("rare", "a: b; c"), Flag("missing")])
def test_copies_and_pickles_keep_the_code(made):
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert other == made and type(other) is type(made)
        assert getattr(other, "code", getattr(other, "kind", None)) == getattr(
            made, "code", getattr(made, "kind", None)
        )


def test_a_kind_is_not_read_out_of_the_words():
    assert Flag("rare", "a: b; c").kind == "rare" and str(Flag("rare", "a: b; c")) == "rare: a: b; c"


def test_a_metric_keeps_its_reason_on_disk():
    metric = Metric(None, Reason("gate_not_passed", "gate not passed"))
    for again in (Metric.from_dict(metric.to_dict()), from_plain(Metric, to_plain(metric))):
        assert again == metric and again.reason is not None and again.reason.code == "gate_not_passed"
