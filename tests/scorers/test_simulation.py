"""Simulation of planted latents: tokens that a description says are active, beside those that are."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from fade_lens import Fade, Results
from fade_lens._util.errors import InputError, JudgeError
from fade_lens.judge import Judge
from fade_lens.llm.chat import Answer
from fade_lens.llm.digits import ExpectedDigits, expected_digits
from fade_lens.metrics.simulated import pooled
from fade_lens.scorers.simulation import Simulated, lines, predicted
from tests.fake_judge import FakeJudge
from tests.planted import SHUFFLED, TRUE, judge_of, natural_texts, planted_model, planted_sae, simulator
from tests.tiny import word_tokenizer

MODEL, SAE, TEXTS = planted_model(), planted_sae(), natural_texts(700)
SMALL: dict[str, Any] = {"simulation_texts": 16, "window_tokens": 8}


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge(says=simulator(8)) as running:
        yield running


def scored(judge: Judge, descriptions: Any = TRUE, **more: Any) -> Results:
    fade = Fade(MODEL, SAE, corpus=TEXTS, judge=judge, **SMALL)
    return fade.evaluate(descriptions, scorers=("simulation",), progress=False, **more)


def test_right_descriptions_follow_the_activations_and_swapped_ones_do_not(server: FakeJudge, tmp_path: Any) -> None:
    results = scored(judge_of(server))
    assert all((r.metric("simulation").value or 0) > 0.95 for r in results)
    assert set(results.frame["simulation_false_alarms"]) == {0} and set(results.frame["simulation_unanswered"]) == {0}
    assert Results.load(results.save(tmp_path / "r.sqlite")).items == results.items
    for r in scored(judge_of(server), SHUFFLED):
        low, high = r.metric("simulation").interval or (1, 1)
        assert low <= 0.05 and high < 0.9


def test_the_estimate_is_what_is_asked_and_nothing_is_asked_twice(server: FakeJudge, tmp_path: Any) -> None:
    fade = Fade(MODEL, SAE, corpus=TEXTS, judge=judge_of(server), **SMALL)
    whole = scored(judge_of(server))
    assert fade.estimate(TRUE, scorers=("simulation",)).calls == 3 * 16 == server.requests - 2
    first = Judge("planted", base_url=server.base_url, api_key="sk-made-up", max_calls=9, concurrency=1)
    with pytest.raises(JudgeError):
        scored(first, store=tmp_path)
    before = server.requests
    assert [r.metrics for r in scored(judge_of(server), store=tmp_path)] == [r.metrics for r in whole]
    assert 0 < server.requests - before < 48


def test_the_same_everywhere_is_nothing_and_told(server: FakeJudge) -> None:
    server.says = lambda body: None if simulator(8)(body) is None else '{"active": []}'
    result = scored(judge_of(server), {0: TRUE[0], 3: "rivers"})
    assert result[0].metric("simulation").value == 0 and "constant" in [flag.kind for flag in result[0].flags]
    reason = result[3].metric("simulation").reason
    assert reason is not None and reason.code == "silent"


def test_answers_are_read_strictly() -> None:
    def read(content: str) -> tuple[float, ...] | None:
        return predicted(Answer(content=content), 3)

    assert read('{"active": [{"token": 2, "strength": 7}]}') == (0, 7, 0) and read('{"active": []}') == (0, 0, 0)
    for wrong in ('{"active": [{"token": 4, "strength": 7}]}', '{"active": [{"token": 1, "strength": 11}]}', '{"active": [1]}', "none"):  # fmt: skip
        assert read(wrong) is None, wrong


def test_the_correlation_is_that_of_all_tokens_together() -> None:
    random = np.random.default_rng(0)
    texts = [(x := random.random(n), x + random.random(n)) for n in (5, 9, 30)]
    value, (low, high) = pooled(texts, np.ones(3), 0)
    x, y = (np.concatenate(side) for side in zip(*texts, strict=True))
    together = np.corrcoef(x, y)[0, 1]
    assert value == pytest.approx(together) and low <= value <= high


def test_each_stratum_has_its_correlation(server: FakeJudge) -> None:
    result = scored(judge_of(server))[0]
    evidence = result.evidence["simulation"]
    assert isinstance(evidence, Simulated)
    strata = {w.stratum for w in evidence.windows if w.kind == "active"}
    assert len(strata) == 8 and set(evidence.columns()) >= {f"simulation_stratum_{at + 1}" for at in strata}
    own = [w.pair for w in evidence.windows if w.kind != "active" or w.stratum == 3]
    x, y = (np.concatenate(side) for side in zip(*own, strict=True))
    assert result.metric("simulation").details["stratum_4"] == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_windows_of_a_document_are_drawn_together() -> None:
    random = np.random.default_rng(0)
    texts = [(x := random.random(9), x + random.normal(size=9)) for _ in range(24)]
    value, alone = pooled(texts, np.ones(24), 0)
    assert pooled(texts, np.ones(24), 0, list(range(24))) == (value, alone)
    twice, documents = texts * 2, [*range(24)] * 2
    assert pooled(twice, np.ones(48), 0, documents)[1] == pytest.approx(alone), "the same text twice tells no more"
    assert np.ptp(pooled(twice, np.ones(48), 0)[1]) < 0.8 * np.ptp(alone)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model that reads bytes."""
    folder = tmp_path_factory.mktemp("local")
    letters = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(letters, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(
            n_layer=2, n_embd=32, n_head=4, n_positions=800, vocab_size=len(letters), initializer_range=0.3
        )
        GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


def test_all_at_once_is_as_one_at_a_time(local: str) -> None:
    simulator = expected_digits(local, "cpu")
    pieces = lines("names of animals", [" the", " cat", "\n", " runs", "."])
    found = simulator.expected(pieces, "?")
    assert found is not None and len({round(x, 3) for x in found}) == 5 and all(0 < x < 9 for x in found)
    ids: list[int] = []
    for piece, digit in zip(pieces, found, strict=True):
        ids += simulator.ids(piece)
        with torch.no_grad():
            chances = (
                simulator.model(torch.tensor([ids]))
                .logits[0, -1, [simulator.ids(str(n))[0] for n in range(10)]]
                .softmax(0)
            )
        assert digit == pytest.approx(float(chances @ torch.arange(10.0)), abs=1e-4)
        ids += simulator.ids("?")


def test_a_local_model_simulates_without_a_judge(local: str) -> None:
    fade = Fade(MODEL, SAE, corpus=TEXTS, simulation_model=local, **SMALL)
    result = fade.evaluate({0: TRUE[0]}, scorers=("simulation",), progress=False)[0]
    assert fade.estimate(TRUE, scorers=("simulation",)).calls == 0
    evidence = result.evidence["simulation"]
    assert isinstance(evidence, Simulated) and result.metric("simulation").counts == {"windows": 16, "unanswered": 0}
    assert all(
        w.predicted is not None and len(w.predicted) == len(w.tokens) and max(w.predicted) < 10
        for w in evidence.windows
    )
    long = fade.evaluate({0: "animals, " * 60}, scorers=("simulation",), progress=False)[0].metric("simulation")
    assert long.value is None and long.counts["unanswered"] == 16
    with pytest.raises(InputError, match="simulation_model 'nobody/nothing' cannot be loaded"):
        Fade(MODEL, SAE, corpus=TEXTS, simulation_model="nobody/nothing").evaluate(TRUE, scorers=("simulation",))


def test_a_tokenizer_without_digits_is_told() -> None:
    with pytest.raises(InputError, match="no token of its own for the digit"):
        ExpectedDigits(None, word_tokenizer())
