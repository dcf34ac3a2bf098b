"""The neighbours' own scoring and sampling functions beside ours: same texts, same judge; equal where they are right, and where not by how much.

    python -m tests.benchmarks.parity_peers                   makes three environments (pip, a temporary folder)
    python -m tests.benchmarks.parity_peers --keep FOLDER     keeps them there for the next time

Delphi (`eai-delphi`), SAEBench (`sae-bench`) and OpenAI's `automated-interpretability` are installed without their dependencies and run by the
`peer_….py` beside this file, models and clients injected. One server of rules is the judge of all (`tests.fake_judge`). Texts are of 32 words;
the planted latent fires on names of animals, which stand early in a text, and weakly on three colours beside. Prints two tables; fails where a
score that should be equal differs by more than 1e-9.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch

from fade_lens import Corpus, Fade, Judge, Subject
from fade_lens.evidence.negatives import Negatives
from fade_lens.evidence.windows import Draw, Evidence, Place
from fade_lens.metrics.decisions import balanced
from fade_lens.scorers.deciding import JudgedWindow
from fade_lens.scorers.detection import detection_of
from fade_lens.scorers.simulation import simulation_of
from tests.benchmarks.parity_metrics import TOLERANCE, environment
from tests.fake_judge import FakeJudge
from tests.planted import TRUE, planted_model, planted_sae
from tests.tiny import ANIMALS, COLOURS, OTHERS, VERBS

PEERS = {
    "delphi": ("eai-delphi==0.1.3", "faiss-cpu"),
    "saebench": ("sae-bench==0.6.0", "tabulate"),
    "simulation": ("automated-interpretability==0.0.24",),
}
RUNNER = """
import runpy, sys
from unittest.mock import MagicMock
while True:
    try:
        runpy.run_path(sys.argv[1], run_name="__main__")
        break
    except ModuleNotFoundError as error:
        if error.name in sys.modules:
            raise
        sys.modules[error.name] = MagicMock()
"""  # what a peer's modules import and its scoring does not use (vLLM, clients of servers) is empty
STAND_INS = Path(__file__).parents[1] / "stand_ins"
TOPICS = [word for word in OTHERS if word.isalpha() and len(word) > 2]
SIZE, FIRES, DENSE = 32, 0, 2
MEANT = {TRUE[FIRES]: set(ANIMALS), TRUE[DENSE]: set(VERBS), "nothing": set[str]()}
DRAWS = 20
LONG = "This neuron activates on " + " ".join(f"word{at}" for at in range(40))
Row = tuple[str, str, str, str]


def made_up_texts(n: int) -> list[str]:
    """Texts of a topic each; a quarter has an animal and three colours, half have verbs."""
    random = np.random.default_rng(0)
    texts: list[str] = []
    for _ in range(n):
        words = np.where(random.random(SIZE) < 0.5, random.choice(TOPICS), random.choice(OTHERS, SIZE)).astype("<U9")
        early = min(int(random.exponential(5)), SIZE - 1)
        others = random.permutation(np.delete(np.arange(SIZE), early))
        if random.random() < 0.25:
            words[early], words[others[:3]] = random.choice(ANIMALS), random.choice(COLOURS, 3)
        if random.random() < 0.5:
            words[others[3:6]] = random.choice(VERBS, 3)
        texts.append(" ".join(words))
    return texts


def planted() -> tuple[Any, Any]:
    """The planted model: the latent of animals fires on some of them more than on others, and weakly on colours."""
    model, sae = planted_model(), planted_sae()
    ids, sae.cfg.metadata.context_size = model.tokenizer.get_vocab(), 2 * SIZE
    with torch.no_grad():
        for words, weakest in ((ANIMALS, 4.0), (COLOURS, 1.15)):
            for at, word in enumerate(words):
                model.embed.W_E[ids[word], FIRES] = weakest + 0.01 * at
    return model, sae


def marked(text: str) -> tuple[list[str], list[int]]:
    """The words of a text, and which of them stand between marks, be it one by one or in a row."""
    words, at, inside = list[str](), list[int](), False
    for word in re.sub("(<<|>>)", r" \1 ", text).split():
        if word in ("<<", ">>"):
            inside = word == "<<"
        else:
            at += [len(words)] if inside else []
            words.append(word)
    return words, at


def decides(concept: str, text: str) -> int:
    """The judge: it knows verbs well, and is wrong on a fifth of all texts about anything else."""
    words, at = marked(text)
    read = {words[place] for place in at} if at else set(words)
    if concept == TRUE[DENSE]:
        return int(bool(read & MEANT[concept]))
    return int(bool(read & set(ANIMALS)) != (crc32(f"{words}{at}".encode()) % 5 == 0))


def says(body: dict[str, Any]) -> str | None:
    """What it answers to the questions of peers, and to our simulation."""
    asked = body["messages"][-1]["content"]
    if found := re.search(r"<tokens>\n(.*)\n</tokens>", asked, re.S):
        words = [line.split("\t")[1].strip("' ") for line in found[1].split("\n")]
        sure = [
            (at, word) for at, word in enumerate(words, 1) if word in ANIMALS or crc32(f"{at}{words}".encode()) % 9 == 0
        ]
        return json.dumps({"active": [{"token": at, "strength": 3 + len(word)} for at, word in sure]})
    if asked.startswith("Latent explanation: "):
        texts = [line.partition(": ")[2] for line in asked.split("\n") if line.startswith("Example ")]
        return "As I see it" if unanswered(asked) else str([decides("", text) for text in texts])
    if found := re.match(
        r"Here is the explanation: this neuron fires on (.*)\.\n\nHere are the examples:\n\n(.*)", asked, re.S
    ):
        texts = [set(line.split()) for line in found[2].split("\n")]
        right = [str(at) for at, words in enumerate(texts, 1) if words & MEANT.get(found[1], set())]
        return "The first and the last of these" if found[1] == "prose" else ", ".join(right) or "None"
    explains = "activating documents" in asked or "\nActivations: " in asked
    return " ".join(LONG.split()[: body.get("max_tokens", 99)]) if explains else None


def unanswered(asked: str) -> bool:
    """Whether the judge says nothing of use, which it does a third of the time to one description."""
    return "Latent explanation: unanswered" in asked and crc32(asked.encode()) % 3 == 0


def told_by(right: Sequence[Sequence[int]], wrong: Sequence[Sequence[int]]) -> float:
    """Balanced accuracy of who sees these numbers of right and wrong marks and nothing else: learned on every second, tried on the others."""
    known = [Counter(chain.from_iterable(side[::2])) for side in (right, wrong)]
    total = [sum(counts.values()) + SIZE / 2 for counts in known]

    def yes(some: Sequence[int]) -> bool:
        odds = [math.log((known[0][x] + 0.5) / total[0]) - math.log((known[1][x] + 0.5) / total[1]) for x in some]
        return sum(odds) > 0

    hits, alarms = ([yes(some) for some in side[1::2]] for side in (right, wrong))
    return (sum(hits) / len(hits) + 1 - sum(alarms) / len(alarms)) / 2


def cheats(texts: Sequence[tuple[str, bool]]) -> tuple[str, str]:
    """What a judge gets that looks only at how many words are marked; only at where."""
    sides = [[marked(text)[1] for text, positive in texts if positive is side] for side in (True, False)]
    counts = [[[len(at)] for at in side] for side in sides]
    return f"{told_by(*counts):.2f}", f"{told_by(*sides):.2f}"


def job_of(texts: Sequence[JudgedWindow]) -> list[dict[str, Any]]:
    """Windows as workers take them."""
    split = [(marked(text.text), text.positive) for text in texts]
    return [{"words": words, "marks": at, "positive": positive} for (words, at), positive in split]


def equal(ours: Any, near: Any, delphi: Any, saebench: Any, simulated: Any) -> list[tuple[str, float, float]]:
    """Scores that should be equal: ours and theirs."""
    rows: list[tuple[str, float, float]] = []
    for name in ("detection", "fuzzing"):
        metric, theirs = ours[FIRES].metric(name), delphi[name]
        rows += [(f"Delphi {name}: balanced accuracy", metric.value, theirs["accuracy"])]
        rows += [
            (f"Delphi {name}: {key}", metric.details[key], theirs[f"{key}{more}"])
            for key, more in (("precision", ""), ("f1", "_score"))
        ]
    rows += [("Delphi embedding: AUROC", near[FIRES].metric("embedding").value, delphi["embedding"])]
    for latent, name in enumerate(("a sparse latent", "a dense one")):
        found = [one[str(latent)] for one in saebench["runs"][:DRAWS]]
        mine = np.mean([accuracy(one) for one in found])
        rows += [
            (
                f"SAEBench, {name}: accuracy of 14 texts, mean of {DRAWS} draws",
                float(mine),
                float(np.mean([one["score"] for one in found])),
            )
        ]
    return [*rows, ("OpenAI simulation: correlation", ours[FIRES].metric("simulation").value, simulated["correlation"])]


def accuracy(found: Any) -> float:
    """The accuracy of SAEBench's decisions on 14 texts by way of our counting."""
    sides = [
        [(at in found["predictions"]) is side for at in range(1, 15) if (at in found["correct seqs"]) is side]
        for side in (True, False)
    ]
    details = balanced(*sides).details
    return (len(sides[0]) * (details["recall"] or 0) + len(sides[1]) * (details["specificity"] or 0)) / 14


def topics(texts: Sequence[str]) -> int:
    """How many topics some texts are of."""
    return len({Counter(word for word in text.split() if word in TOPICS).most_common(1)[0][0] for text in texts})


def faults(ours: Any, evidence: Evidence, delphi: Any, saebench: Any, simulated: Any, calls: int) -> list[Row]:
    """What is not equal: peer, what was looked at, theirs, ours."""
    own = ours[FIRES].evidence
    roles = [{place.text for place in evidence.drawn(FIRES, role, Draw(n))} for role, n in (("show", 40), ("test", 50))]
    best = evidence.drawn(FIRES, None, Draw(10, by="top"))
    similar = Negatives(evidence).drawn(FIRES, None, 50, ("similar_silent",), exemplars=best)["similar_silent"]
    words = list(evidence.words)
    exemplars, negatives = (
        [words[evidence.grid.at(place.text, place.first)] for place in some] for some in (best, similar)
    )
    fuzzed = own["fuzzing"].texts
    silent = [(text.text, False) for text in fuzzed if text.kind == "silent_marks"]
    theirs = [(one["text"], one["positive"]) for one in delphi["marks"]]
    places = [len({tuple(marked(text)[1]) for text, positive in some if not positive}) for some in (theirs, silent)]
    lengths = [
        np.mean([len(marked(text)[1]) for text, positive in theirs if positive is side]) for side in (True, False)
    ]
    paired = [(text.text, text.positive) for text in fuzzed if text.kind != "silent_marks"]
    number, where = zip(cheats(theirs), cheats(paired), strict=True)
    tested = own["detection"].texts
    some = detection_of([replace(t, decided=None if at % 3 == 0 else t.decided) for at, t in enumerate(tested)])
    lost, windows = delphi["failing"], own["simulation"].windows
    answered = simulation_of([replace(w, predicted=None) if at % 3 == 0 else w for at, w in enumerate(windows)])
    flat = simulation_of([replace(w, predicted=(0.0,) * len(w.tokens)) for w in windows])
    first, whole = saebench["runs"][0]["0"]["explanation"], saebench["runs"][DRAWS:]
    (grid, n_grid), (peak, n_peak) = (delphi[f"peaks, center_examples={flag}"] for flag in (True, False))
    return [
        ("Delphi", "tested positives that the explainer was shown", "{} of {}".format(*delphi["shared"]), f"{len(roles[0] & roles[1])} of {len(roles[1])}"),
        ("Delphi", "topics of 50 negatives similar to ten examples", f"{topics(delphi['faiss']['texts'])} of the {topics(delphi['faiss']['shown'])} of the examples (searches made: {delphi['faiss']['searches']} of 10)", f"{topics(negatives)} of {topics(exemplars)}"),
        ("Delphi", "contrastive explainer with negatives", delphi["contrastive"], "runs"),
        ("Delphi", "an answer without its tag becomes the explanation", f"“{delphi['unread']}”", "none, with a reason"),
        ("Delphi", "sets of marked positions on silent texts", f"{places[0]} on {sum(not positive for _, positive in theirs)}", f"{places[1]} on {len(silent)}"),
        ("Delphi", "marks on right and on wrong texts, mean", "{:.2f} and {:.2f}".format(*lengths), "equal on each text"),
        ("Delphi", "fuzzing of a judge that only counts marks", *number),
        ("Delphi", "fuzzing of a judge that only sees where marks are", *where),
        ("Delphi", "marks on a silent text where the first negative is a neighbour's", f"{delphi['all marked']} of {SIZE} tokens", "as many as on a right one"),
        ("Delphi", "intruder at its default of one example shown", delphi["intruder"], "five texts a round"),
        ("Delphi", "texts without a decision in a short last request, all answered", f"{delphi['short']['undecided']} of {delphi['short']['n']}", "0"),
        ("Delphi", "failures told, of those that there were", f"{lost['failed_count']:.0f} of {lost['undecided']}", f"{some.counts['unanswered']} of {sum(at % 3 == 0 for at in range(len(tested)))}, score {some.details['worst']:.2f} … {some.details['best']:.2f}"),
        ("Delphi", "positions of peaks if center_examples is True; False", f"{len(grid)}; {len(peak)} (and {n_peak} of {n_grid} windows left)", "many; `centred`: one, all texts"),
        ("Delphi", "single-token: one token at the 200 strongest activations, 60 at the 60 weakest; the reverse", "{}; {}".format(*("yes" if x else "no" for x in delphi["single token"])), "by entropy of the strongest"),
        ("SAEBench", "score of a description that says nothing (“None”)", f"{whole[0]['0']['score']:.3f}", f"{(balanced([False] * 4, [True] * 10).value or 0):.3f}"),
        ("SAEBench", "score of a perfect judge and description, a latent that fires in half of the texts", f"{np.mean([one['1']['score'] for one in saebench['runs'][:DRAWS]]):.2f}", f"{ours[DENSE].metric('detection').value:.2f}"),
        ("SAEBench", "tested positives that share tokens with shown ones, a rare latent", "{} of {}".format(*saebench["shared"]["2"]), "0"),
        ("SAEBench", "words kept of an explanation of 40", str(len(first.split())), "40"),
        ("SAEBench", "explanations paid for where one was given", f"{calls} of {calls}", "0"),
        ("SAEBench", "latents left where an answer is prose; where one request fails", f"{len(whole[1])} of 1; {whole[2] if isinstance(whole[2], str) else len(whole[2])}", "all, with a reason"),
        ("OpenAI", "simulation that is 0 at every token", str(simulated["constant"] or "NaN"), f"{flat.value:.0f}, with a flag"),
        ("OpenAI", f"a third of all answers a token short (whole: {simulated['correlation']:.3f})", f"{simulated['answers']:.3f} (zeros)", f"{answered.value:.3f} ({answered.counts['unanswered']} missing)"),
    ]  # fmt: skip


def simulation_job(window: Any, short: bool) -> dict[str, Any]:
    """A window for the simulation's worker; a short answer lacks the last token."""
    rows = [{"token": token, "activation": value} for token, value in zip(window.tokens, window.predicted, strict=True)]
    answer = json.dumps({"activations": rows[:-1] if short else rows})
    return {"tokens": window.tokens, "activations": window.activations, "predicted": window.predicted, "answer": answer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder in which the peers' environments are, or are made and kept")
    kept = parser.parse_args().keep
    sys.path.insert(0, str(STAND_INS))
    torch.set_num_threads(2)
    texts, (model, sae) = made_up_texts(4000), planted()
    subject = Subject(model, sae, Corpus.from_texts(texts), (FIRES, DENSE))
    evidence = Evidence(subject)
    places = [Place(at, first, first + SIZE) for at, first in enumerate(evidence.grid.lead.tolist())]
    read = evidence.read(dict.fromkeys((FIRES, DENSE), places))
    activations = {i: [[value or 0.0 for value in w.activations] for w in some] for i, some in read.items()}

    def error(body: dict[str, Any]) -> str | None:
        return "filtered" if "fires on an error" in body["messages"][-1]["content"] else None

    with tempfile.TemporaryDirectory() as folder, FakeJudge(rule=decides, says=says, choose=error) as server:

        def peer(name: str, job: Any) -> Any:
            home = (kept or Path(folder)) / name
            found = [*home.glob("bin/python"), *home.glob("Scripts/python.exe")]
            more = {"PYTHONPATH": str(STAND_INS), "OPENAI_BASE_URL": server.base_url}
            python = found[0] if found else environment(home, *PEERS[name])
            script = Path(__file__).with_name(f"peer_{name}.py")
            done = subprocess.run(
                [python, "-c", RUNNER, script],
                input=json.dumps(job),
                capture_output=True,
                text=True,
                env=os.environ | more,
            )
            if done.returncode:
                sys.exit(f"{name} failed:\n{done.stderr}")
            return json.loads(done.stdout.split("\n")[-1])  # peers print, too

        judge = Judge("rule", base_url=server.base_url, api_key="sk-made-up")
        fade = Fade(model, sae, corpus=texts, judge=judge, fuzzing_texts=800, fuzzing_silent=100, simulation_texts=90)
        ours = fade.evaluate(
            {FIRES: TRUE[FIRES], DENSE: TRUE[DENSE]}, scorers=("detection", "fuzzing", "simulation"), progress=False
        )
        near = fade.evaluate({FIRES: " ".join(ANIMALS)}, scorers=("embedding",), progress=False)
        seen = {name: list(one.texts) for name, one in ours[FIRES].evidence.items() if name != "simulation"}
        seen["embedding"] = list(near[FIRES].evidence["embedding"].texts)
        pairs = [text for text in seen["fuzzing"] if text.kind != "silent_marks"]
        windows = ours[FIRES].evidence["simulation"].windows

        delphi = peer("delphi", {
            "base_url": server.base_url, "description": " ".join(ANIMALS), "words": list(words := dict.fromkeys(" ".join(texts).split())),
            "ids": [[list(words).index(word) for word in text.split()] for text in texts], "activations": activations[FIRES],
            "detection": job_of(seen["detection"]), "fuzzing": job_of(pairs), "embedding": job_of(seen["embedding"]),
        })  # fmt: skip
        contexts = np.array([activations[i] for i in (FIRES, DENSE)]).transpose(1, 2, 0).reshape(-1, 4 * SIZE, 2)
        rare = np.zeros((len(contexts), 4 * SIZE, 1))
        rare[:20, 40:52] = np.random.default_rng(0).random((20, 12, 1)) + 1
        both = {"0": TRUE[FIRES], "1": TRUE[DENSE]}
        runs = [*[both] * DRAWS, {"0": "nothing"}, {"0": "prose"}, {"0": TRUE[FIRES], "1": "an error"}]
        before = len(server.bodies)
        job = {
            "words": " ".join(texts).split(),
            "activations": np.concatenate([contexts, rare], 2).tolist(),
            "latents": [0, 1, 2],
            "runs": runs,
        }
        saebench = peer("saebench", job)
        calls = sum("activating documents" in body["messages"][-1]["content"] for body in server.bodies[before:])
        simulated = peer("simulation", [simulation_job(window, at % 3 == 0) for at, window in enumerate(windows)])
        rows = faults(ours, evidence, delphi, saebench, simulated, calls)
    same = equal(ours, near, delphi, saebench, simulated)
    print("| same texts, same decisions | theirs | ours | difference |\n|---|--:|--:|--:|")
    for name, mine, other in same:
        print(f"| {name} | {other:.4f} | {mine:.4f} | {abs(mine - other):.0e} |")
    print("\n| peer | what | theirs | ours |\n|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows), sep="\n")
    if max(abs(mine - other) for _, mine, other in same) > TOLERANCE:
        sys.exit(f"a score differs from a peer's by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
