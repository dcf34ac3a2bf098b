"""A map of latents: where the decoder directions of one or several SAEs lie, which belong together, and how wide SAEs split what narrow ones have."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from sae_lens import SAE
from torch import Tensor

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import clean, table_of, write_csv
from fade_lens._util.progress import Stages
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import rng
from fade_lens.analysis.geometry import (
    Layout,
    check_extra,
    clusters_tested,
    covered,
    layout,
    shares,
)
from fade_lens.analysis.labels import KEYS, check_labels, labels_of
from fade_lens.analysis.opening import names_in, published, same_model
from fade_lens.data.corpus import Corpus
from fade_lens.neuronpedia.links import dashboard
from fade_lens.neuronpedia.resolving import names_of
from fade_lens.runs.fires import by_name
from fade_lens.runs.health import drawn, some_of
from fade_lens.subject.features import Latents, Source
from fade_lens.subject.firing import firing_tokens
from fade_lens.subject.hooks import Model, layer_of
from fade_lens.subject.lens import RESIDUAL, in_residual_stream, most_promoted
from fade_lens.subject.loading import load_sae
from fade_lens.subject.neighbours import nearest, unit_rows
from fade_lens.subject.settings import SubjectSettings
from fade_lens.subject.subject import Subject
from fade_lens.subject.tokens import decode

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

SPLIT = 0.7
"""The cosine from which a latent of a wide SAE is a part of one of a narrow SAE."""
SHOWN_TOKENS = 10
AT_ONCE = 4096
"""Latents whose directions, and promoted tokens, are found at a time."""
ABOUT_SAE, OF_WIDE = ("sae", "hook", "layer", "width", "index"), ("parent_sae", "parent", "parent_cosine", "split", "inclusion")  # fmt: skip
OURS = (*ABOUT_SAE, "x", "y", "cluster", "density", "promoted", "url", *OF_WIDE, "description")
"""The columns of `LatentMap.frame` that are not given with descriptions."""
CLUSTERS = ("cluster", "size", "cosine", "cosine_random", "cosine_p", "cosine_q")
SPLITS = ("sae", "index", "wide", "n_children", "children", "cosine")


@dataclass(frozen=True)
class LatentMap:
    """Latents on a plane, their clusters, and what wide SAEs split.

    Distances on the plane mean something between neighbours only.

    Attributes:
        frame: a row a latent: sae, hook, layer, width, index, x, y, cluster (-1: none), density (share of tokens on which it fires),
            promoted (tokens), description and scores where they are known; of a latent of a wide SAE also parent_sae, parent and
            parent_cosine (the most alike latent of the next narrower SAE at the same hook), split (whether that is at least 0.7: else it
            is new) and inclusion (of the tokens on which it fires, the share on which the parent does); its Neuronpedia page as url.
        clusters: a row a cluster, against random sets of as many latents (see `fade_lens.analysis.geometry.clusters_tested`).
        splits: a row a latent of a narrow SAE that wide ones split: sae, index, wide (the other SAE), children, n_children, cosine (mean with them),
            inclusion (their mean), coverage (of the tokens on which it fires, the share on which a child does).
        scores: the columns of `frame` that were given with the descriptions.
        failed: the SAEs that could not be loaded, and why.
        facts: what was mapped and what was left out, in sentences.
    """

    frame: "pd.DataFrame"
    clusters: "pd.DataFrame"
    splits: "pd.DataFrame"
    scores: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict[str, str])
    facts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frame)

    def to_csv(self, path: str | Path) -> Path:
        """Write `frame`, and beside it `clusters` and `splits` as NAME-clusters.csv and NAME-splits.csv."""
        path = write_csv(self.frame, path)
        for name, table in (("clusters", self.clusters), ("splits", self.splits)):
            write_csv(table, path.with_name(f"{path.stem}-{name}{path.suffix or '.csv'}"))
        return path

    def to_html(self, path: str | Path) -> Path:
        """Write a page to look around in: hover, colour by any score, search. What is shown of many latents lies in a folder NAME_texts beside it."""
        from fade_lens.report.latent_map import map_page
        from fade_lens.report.shards import write_beside

        folder = f"{Path(path).stem}_texts"
        page, files = map_page(self, folder)
        return write_beside(path, folder, files.items(), lambda: page)

    def plot(self, colour: str = "sae") -> "go.Figure":
        """The map as a figure for a notebook, coloured by "sae", "cluster", or any column of numbers of `frame`.

        Raises:
            InputError: no such column.
        """
        from fade_lens.report.latent_map import map_figure

        return map_figure(self, colour)

    @cached_property
    def colours(self) -> tuple[str, ...]:
        """The columns by which latents can be coloured: the SAE, the cluster, then all that hold numbers."""
        numbers = ("density", "parent_cosine", "inclusion", *self.scores)
        frame: Any = self.frame
        return ("sae", "cluster", *(name for name in numbers if name in frame and np.isfinite(frame[name].astype("float64")).any()))  # fmt: skip

    def __repr__(self) -> str:
        return f"LatentMap({len(self)} latents of {self.frame['sae'].nunique()} SAEs, {len(self.clusters)} clusters)"


@dataclass(frozen=True)
class Mapped:
    """An SAE on the way to the map.

    Attributes:
        name: the SAE's.
        indices: of the latents that are mapped.
        firing: at which tokens they fire, where texts were given.
    """

    name: str
    sae: SAE[Any]
    indices: Int[np.ndarray, " latent"]
    firing: Any = None

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def hook(self) -> str:
        """Where the directions are added."""
        metadata = self.sae.cfg.metadata
        return str(metadata.hook_name_out or metadata.hook_name)

    @property
    def place(self) -> str:
        """The space that the directions lie in: the hook, of one attention head where the SAE is of one."""
        head = self.sae.cfg.metadata.hook_head_index
        return self.hook if head is None else f"{self.hook}, head {head}"

    @property
    def width(self) -> int:
        """Latents of the whole SAE."""
        return int(self.sae.cfg.d_sae)

    def directions(self, some: slice) -> Float[Tensor, "some d_out"]:
        """Some of the directions, of any length."""
        return self.sae.W_dec.detach()[torch.from_numpy(self.indices[some]).to(self.sae.W_dec.device)].cpu()

    def among(self, some: Int[np.ndarray, " place"]) -> "Mapped":
        """Some of the latents, by their places here."""
        return Mapped(self.name, self.sae, self.indices[some], None if self.firing is None else self.firing[:, some])


def latent_map(
    saes: Source | Sequence[Source] | Mapping[str, Source],
    sae_ids: str | Sequence[str] = "*",
    *,
    model: Model | str | None = None,
    corpus: Corpus | Sequence[str] | None = None,
    descriptions: Any = None,
    latents: int | None = None,
    texts: int = 300,
    tokens: bool = True,
    neighbours: int = 15,
    least: int = 3,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> LatentMap:
    """Put the decoder directions of SAEs on a map, by UMAP of their cosines, and find clusters and what wide SAEs split.

    The exercise of ARENA's chapter on interpretability with SAEs, in one call; here dead latents are left out, all rests on the seed, and
    clusters are tested against random sets: by cosine, and by whether their latents fire together, which they were made without. There is no
    `ray`: a few hundred texts are read, and what takes long is UMAP.

    Args:
        saes: a release in SAELens' list; or an SAE or several, in a list or in a dict by names of your own.
        sae_ids: which SAEs of the release: a pattern such as "blocks.8.hook_resid_pre*", or several.
        model: that the SAEs are of. Without it nothing is said of tokens, and no corpus is read, unless `saes` is a release, whose model is then
            loaded if it is needed.
        corpus: natural texts, on which is seen which latents fire at all, and together; None: none is read.
        descriptions: what is known of latents: "neuronpedia"; a `Release` or its folder; `Results` or a table with descriptions and
            scores, by name where there are several SAEs (see `fade_lens.analysis.labels.labels_of`).
        latents: of each SAE at most so many, drawn by seed, so that the widest does not rule the map; None: all.
        texts: of the corpus, drawn by seed.
        tokens: find the tokens that each latent promotes, where there is a model: a product with the whole vocabulary.
        neighbours: of each latent that UMAP keeps near.
        least: latents that make a cluster.
        seed: of the draws, of UMAP and of the random sets.
        device: of a model that is loaded here.
        progress: show progress bars.

    Raises:
        InputError: no SAE, SAEs whose directions lie in different spaces, no latent that fires, descriptions of other SAEs.
        MissingExtraError: the extra `geometry` is not installed.
        NeuronpediaError: descriptions are to come from there, and it cannot be read; that it does not have an SAE is a fact of the map.
    """
    for name, given, low in (("latents", latents, 1), ("texts", texts, 1), ("neighbours", neighbours, 2), ("least", least, 2)):  # fmt: skip
        if given is not None and given < low:
            raise InputError(Argument(name), f" is {given}; give at least {low}")
    if corpus is not None and model is None and not isinstance(saes, str):
        raise InputError(Argument("corpus"), " is read by the SAEs' model: give ", Argument("model"), " too, or leave the corpus out")  # fmt: skip
    given = corpus if corpus is None or isinstance(corpus, Corpus) else Corpus.from_texts(corpus)
    check_labels(descriptions)
    check_extra()
    failed = dict[str, str]()
    needs_model = given is not None or tokens
    opened, sources = opened_saes(saes, sae_ids, model, needs_model, device, lambda name, why: failed.update({name: str(why)}))  # fmt: skip
    every = dict[str, Mapped]()
    for name, source in sources.items():
        try:
            every[name] = whole(name, source(), opened if needs_model else None)
        except InputError as error:
            failed[name] = str(error)
    if not every:
        raise InputError("no SAE can be mapped; " + "; ".join(f"{name}: {why}" for name, why in list(failed.items())[:3]))  # fmt: skip
    same_space(list(every.values()))
    same_model({name: one.sae.cfg.metadata.model_name for name, one in every.items()})
    known, facts = labels_of(descriptions, {name: one.sae for name, one in every.items()}, failed)
    stages = Stages(progress)
    with stages.showing():
        if given is not None:
            assert opened is not None, "a model is there where texts are"
            every = seen(opened, every, given, texts, seed, stages, facts)
        else:
            facts.append("No texts were read: which latents are dead is not known, and clusters are tested by cosine alone.")  # fmt: skip
        split, parents = splits_of(list(every.values()))
        shown = [one if latents is None else draw(one, latents, seed) for one in every.values()]
        rows = directions_of(shown)
        laid = layout(rows, neighbours=neighbours, least=least, seed=seed)
        firing = None
        if given is not None:
            from scipy.sparse import hstack

            firing: Any = hstack([one.firing for one in shown], format="csc")
        tested = tabled(clusters_tested(laid.clusters, rows, firing, seed=seed), CLUSTERS)
        words = [promoted(opened, one, stages) if opened is not None and tokens else None for one in shown]
    frame, scores = with_labels(frame_of(shown, words, laid, parents), known)
    facts = [f"{one.name}: {len(one):,} latents of {one.width:,} at {one.place}." for one in shown] + facts
    return LatentMap(frame, tested, split, scores, failed, tuple(facts))


def opened_saes(
    saes: Any,
    sae_ids: str | Sequence[str],
    model: Model | str | None,
    needs_model: bool,
    device: str | torch.device | None,
    fails: Callable[[str, object], None],
) -> "tuple[Model | None, dict[str, Callable[[], Any]]]":
    """The model, where it is needed, and what opens each SAE."""
    if isinstance(saes, str):
        names = names_in(saes, sae_ids)
        if needs_model:
            return published(saes, names, model, device, "float32", fails)
        return None, {name: (lambda name=name: load_sae(saes, name, device="cpu")) for name in names}
    if isinstance(model, str):
        raise InputError(Argument("model"), f" is {model!r}; give the model itself with SAEs of your own (`fade_lens.load` gives both)")  # fmt: skip
    named = by_name(saes)
    for source in named.values():
        if not isinstance(source, SAE):
            raise InputError(Argument("saes"), f" holds {source!r:.80}; a map shows decoder directions, which SAEs alone have")  # fmt: skip
    return model, {clean(name): (lambda source=source: source) for name, source in named.items()}


def whole(name: str, sae: SAE[Any], model: Model | None) -> Mapped:
    """An SAE with all of its latents but those without a direction.

    Raises:
        InputError: it is damaged, or does not fit the model.
    """
    if model is not None:
        Latents(model, sae, [0])
    low, high = sae.W_dec.detach().aminmax(dim=-1)
    if not (low.isfinite() & high.isfinite()).all():
        raise InputError(f"the decoder of {name!r} holds numbers that are not finite; it is damaged")
    there = np.flatnonzero(((low != 0) | (high != 0)).cpu().numpy())
    if not len(there):
        raise InputError(f"the decoder of {name!r} holds nothing but zeros")
    return Mapped(name, sae, there)


def directions_of(every: Sequence[Mapped]) -> Float[Tensor, "latent d_out"]:
    """The directions of all latents, of length 1; there is no second copy of them."""
    rows, at = torch.empty(sum(map(len, every)), every[0].sae.W_dec.shape[1]), 0
    for one in every:
        for start in range(0, len(one), AT_ONCE):
            some = unit_rows(one.directions(slice(start, start + AT_ONCE)))
            rows[at : at + len(some)] = some
            at += len(some)
    return rows


def tabled(records: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> "pd.DataFrame":
    """A table of records; one of none has the columns all the same."""
    import pandas as pd

    table = table_of(records)
    return table if len(table) else pd.DataFrame(columns=list(columns))


def same_space(every: Sequence[Mapped]) -> None:
    """Raise `InputError` for SAEs whose directions cannot be compared: of other sizes, or not all of the residual stream."""
    first = every[0]
    for one in every[1:]:
        sizes = [each.sae.W_dec.shape[1] for each in (first, one)]
        if sizes[0] != sizes[1]:
            raise InputError(f"the directions of {first.name!r} have {sizes[0]} dimensions, those of {one.name!r} {sizes[1]}; map them apart")  # fmt: skip
        if one.place != first.place and not (RESIDUAL.fullmatch(one.place) and RESIDUAL.fullmatch(first.place)):
            raise InputError(f"the directions of {first.name!r} lie at {first.place}, those of {one.name!r} at {one.place}, which are different spaces; map them apart")  # fmt: skip


def seen(
    model: Model,
    every: Mapping[str, Mapped],
    corpus: Corpus,
    texts: int,
    seed: int,
    stages: Stages,
    facts: list[str],
) -> dict[str, Mapped]:
    """The latents that fire on some texts, and where they do; `facts` learn how many do not. Raises `InputError` where none does."""
    given = some_of(corpus, texts, seed)
    features = {name: Latents(model, one.sae, one.indices.tolist()) for name, one in every.items()}
    if len({one.prepend_bos for one in features.values()}) > 1:
        raise InputError("some of these SAEs want BOS in front of a text and some do not, so that they read different tokens; map them apart, or without a corpus")  # fmt: skip
    contexts = [Subject(model, one.sae, given, [0], SubjectSettings(seed=seed)).context for one in every.values()]
    read = Subject(model, next(iter(every.values())).sae, given, [0], SubjectSettings(seed=seed, context=min(contexts)))
    tokens = drawn(read.tokens, texts, seed)
    found = firing_tokens(model, list(features.values()), tokens, progress=stages.stage("model: which latents fire", len(tokens)))  # fmt: skip
    n = int((~tokens.special).sum())
    alive = dict[str, Mapped]()
    for one, firing in zip(every.values(), found, strict=True):
        on = np.flatnonzero(np.asarray(firing.sum(axis=0)) > 0)
        facts.append(f"{one.name}: {one.width - len(on):,} latents are silent on {n:,} tokens and left out.")
        alive[one.name] = replace(one, firing=firing).among(on)
    if not any(map(len, alive.values())):
        raise InputError(f"none of the latents of {', '.join(every)} fires on {len(tokens)} texts of the corpus; give more texts, or other ones")  # fmt: skip
    return alive


def draw(one: Mapped, n: int, seed: int) -> Mapped:
    """At most `n` latents, drawn by seed."""
    order = rng(seed, "map", one.name).permutation(len(one))[:n]
    return one.among(np.sort(order))


def splits_of(every: Sequence[Mapped]) -> "tuple[pd.DataFrame, pd.DataFrame | None]":
    """What wide SAEs split of the next narrower one at the same hook, and the parent of each of their latents; None where there is no wider one."""
    import pandas as pd

    rows, parents = list[dict[str, Any]](), list[pd.DataFrame]()
    for wide in every:
        narrower = [one for one in every if one.place == wide.place and one.width < wide.width and len(one)]
        if not narrower or not len(wide):
            continue
        narrow = max(narrower, key=lambda one: one.width)
        cosines, at = (found[:, 0].numpy() for found in nearest(directions_of([wide]), narrow.directions, len(narrow), 1))  # fmt: skip
        split = cosines >= SPLIT
        table = pd.DataFrame({"sae": wide.name, "index": wide.indices, "parent_sae": narrow.name, "parent": narrow.indices[at], "parent_cosine": cosines, "split": split})  # fmt: skip
        children = np.flatnonzero(split)[np.argsort(at[split], kind="stable")]  # a parent's, one after the other
        split_ones, first, sets = np.unique(at[children], return_index=True, return_inverse=True)
        known: dict[str, Any] = {}
        if wide.firing is not None and narrow.firing is not None:
            table["inclusion"] = both = shares(narrow.firing, wide.firing, at)
            known = {"inclusion": both, "coverage": covered(narrow.firing[:, split_ones], wide.firing[:, children], sets)}  # fmt: skip
        parents.append(table)
        for place, some in enumerate(np.split(children, first[1:]) if len(children) else ()):
            row: dict[str, Any] = {
                "sae": narrow.name,
                "index": int(narrow.indices[split_ones[place]]),
                "wide": wide.name,
                "n_children": len(some),
                "children": ", ".join(map(str, wide.indices[some].tolist())),
                "cosine": float(cosines[some].mean()),
            }
            if known:
                row |= {"inclusion": float(np.nanmean(known["inclusion"][some])), "coverage": float(known["coverage"][place])}  # fmt: skip
            rows.append(row)
    rows.sort(key=lambda row: -row["n_children"])
    return tabled(rows, SPLITS), pd.concat(parents, ignore_index=True).astype({"parent": "Int64"}) if parents else None


def promoted(model: Model, one: Mapped, stages: Stages) -> list[str] | None:
    """The tokens that each latent promotes, in one text; None where directions do not reach the output."""
    advance, features = stages.stage(f"promoted tokens: {one.name}", len(one)), Latents(model, one.sae, [0])
    ids = list[np.ndarray]()
    for start in range(0, len(one), AT_ONCE):
        rows = in_residual_stream(model, features.select(one.indices[start : start + AT_ONCE].tolist()))
        if isinstance(rows, Reason):
            return None
        for (_, some), *_ in most_promoted(model, rows, SHOWN_TOKENS, signs=(1,)):
            ids.append(some.numpy())
            advance(len(some))
    each, at = np.unique(np.concatenate(ids or [np.zeros((0, SHOWN_TOKENS), int)]), return_inverse=True)
    texts = [str(i) if model.tokenizer is None else repr(decode(model.tokenizer, [i])) for i in each.tolist()]
    return [", ".join(texts[i] for i in row) for row in at.tolist()]


def frame_of(
    shown: Sequence[Mapped], words: Sequence[Sequence[str] | None], laid: Layout, parents: "pd.DataFrame | None"
) -> "pd.DataFrame":
    """A row a latent: what is known without descriptions."""
    import pandas as pd

    tables = list[pd.DataFrame]()
    for one, said in zip(shown, words, strict=True):
        known = names_of(one.sae).get("neuronpedia_id")
        about = (one.name, one.hook, layer_of(one.hook), one.width, one.indices)
        table = pd.DataFrame(dict(zip(ABOUT_SAE, about, strict=True)))
        if one.firing is not None:
            table["density"] = np.asarray(one.firing.sum(axis=0)) / one.firing.shape[0]
        if said is not None:
            table["promoted"] = list(map(clean, said))
        if known is not None:
            table["url"] = [f"{dashboard(known, 0).removesuffix('0')}{index}" for index in one.indices.tolist()]
        tables.append(table)
    frame = pd.concat([table for table in tables if len(table)], ignore_index=True)
    for place, (name, values) in enumerate((("x", laid.places[:, 0]), ("y", laid.places[:, 1]), ("cluster", laid.clusters)), len(ABOUT_SAE)):  # fmt: skip
        frame.insert(place, name, values)
    return frame if parents is None else frame.merge(parents, on=["sae", "index"], how="left")


def with_labels(frame: "pd.DataFrame", known: "Mapping[str, pd.DataFrame]") -> "tuple[pd.DataFrame, tuple[str, ...]]":
    """The latents with their descriptions and scores, and the names of the scores; what a column of ours is called becomes `given_…`."""
    import pandas as pd

    if not known:
        return frame, ()
    labels = pd.concat([table.assign(sae=name) for name, table in known.items()], ignore_index=True)
    scores = [c for c in labels.columns if c not in KEYS]
    new = dict[str, str]()
    for name in scores:
        new[name] = name
        while new[name] in OURS or (new[name] != name and new[name] in scores):
            new[name] = f"given_{new[name]}"
    return frame.merge(labels.rename(columns=new), on=["sae", "index"], how="left"), tuple(new.values())
