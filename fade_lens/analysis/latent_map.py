"""A map of latents: where the decoder directions of one or several SAEs lie, which belong together, and how wide SAEs split what narrow ones have."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from sae_lens import SAE
from torch import Tensor

from fade_lens._util.errors import Argument, InputError
from fade_lens._util.files import table_of, write_csv, write_text
from fade_lens._util.progress import Stages
from fade_lens._util.reasons import Reason
from fade_lens._util.seeds import rng
from fade_lens.analysis.geometry import (
    check_extra,
    clusters_tested,
    covered,
    layout,
    nearest,
    shares,
    unit_rows,
)
from fade_lens.analysis.labels import KEYS, labels_of
from fade_lens.analysis.opening import names_in, published, same_model
from fade_lens.data.corpus import Corpus
from fade_lens.neuronpedia.links import dashboard
from fade_lens.neuronpedia.resolving import names_of
from fade_lens.runs.fires import by_name
from fade_lens.runs.health import drawn, some_of
from fade_lens.subject.features import Latents, Source
from fade_lens.subject.firing import firing_tokens
from fade_lens.subject.hooks import Model, layer_of
from fade_lens.subject.lens import RESIDUAL, promoted_tokens
from fade_lens.subject.loading import load_sae
from fade_lens.subject.settings import SubjectSettings
from fade_lens.subject.subject import Subject

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

SPLIT = 0.7
"""The cosine from which a latent of a wide SAE is a part of one of a narrow SAE."""
SHOWN_TOKENS = 10
LENS_ROWS = 512
"""Latents whose promoted tokens are found at a time."""


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

        path = Path(path)
        page, shards = map_page(self, f"{path.stem}_texts")
        for name, text in shards.items():
            write_text(path.parent / f"{path.stem}_texts" / name, text)
        return write_text(path, page)

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
        return ("sae", "cluster", *(name for name in numbers if name in frame and frame[name].notna().any()))

    def __repr__(self) -> str:
        return f"LatentMap({len(self)} latents of {self.frame['sae'].nunique()} SAEs, {len(self.clusters)} clusters)"


@dataclass(frozen=True)
class Mapped:
    """An SAE on the way to the map.

    Attributes:
        sae: the SAE.
        rows: the directions of the latents that are mapped, of length 1.
        indices: of these latents.
        firing: at which tokens they fire, where texts were given.
    """

    name: str
    sae: SAE[Any]
    rows: Float[Tensor, "latent d_out"]
    indices: Int[np.ndarray, " latent"]
    firing: Any = None

    @property
    def hook(self) -> str:
        """Where the directions are added."""
        metadata = self.sae.cfg.metadata
        return str(metadata.hook_name_out or metadata.hook_name)

    @property
    def width(self) -> int:
        """Latents of the whole SAE."""
        return int(self.sae.cfg.d_sae)

    def among(self, some: Int[np.ndarray, " place"]) -> "Mapped":
        """Some of the latents, by their places here."""
        firing = None if self.firing is None else self.firing[:, some]
        return Mapped(self.name, self.sae, self.rows[torch.from_numpy(some)], self.indices[some], firing)


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
    clusters are tested against random sets: by cosine, and by whether their latents fire together, of which the directions know nothing.

    Args:
        saes: a release in SAELens' list; or an SAE or several, in a list or in a dict by names of your own.
        sae_ids: which SAEs of the release: a pattern such as "blocks.8.hook_resid_pre*", or several.
        model: that the SAEs are of. Without it nothing is said of tokens, unless `saes` is a release, whose model is then loaded if it is needed.
        corpus: natural texts, on which is seen which latents fire at all, and together; None: none is read.
        descriptions: what is known of latents: "neuronpedia"; a `Release` or its folder; `Results` or a table with descriptions and
            scores, by name where there are several SAEs (see `fade_lens.analysis.labels.labels_of`).
        latents: of each SAE at most so many, drawn by seed, so that the widest does not rule the map; None: all.
        texts: of the corpus, drawn by seed.
        tokens: find the tokens that each latent promotes, where there is a model.
        neighbours: of each latent that UMAP keeps near.
        least: latents that make a cluster.
        seed: of the draws, of UMAP and of the random sets.
        device: of a model that is loaded here.
        progress: show progress bars.

    Raises:
        InputError: no SAE, SAEs whose directions lie in different spaces, no latent that fires, descriptions of other SAEs.
        MissingExtraError: the extra `geometry` is not installed.
    """
    for name, given, low in (("latents", latents, 1), ("texts", texts, 1), ("neighbours", neighbours, 2), ("least", least, 2)):  # fmt: skip
        if given is not None and given < low:
            raise InputError(Argument(name), f" is {given}; give at least {low}")
    check_extra()
    failed = dict[str, str]()
    needs_model = corpus is not None or tokens
    opened, sources = sources_of(saes, sae_ids, model, needs_model, device, lambda name, why: failed.update({name: str(why)}))  # fmt: skip
    every = dict[str, Mapped]()
    for name, source in sources.items():
        try:
            every[name] = whole(name, source())
        except InputError as error:
            failed[name] = str(error)
    if not every:
        raise InputError("no SAE could be loaded; " + "; ".join(f"{name}: {why}" for name, why in list(failed.items())[:3]))  # fmt: skip
    same_space(list(every.values()))
    same_model({name: one.sae.cfg.metadata.model_name for name, one in every.items()})
    known, stages, facts = labels_of(descriptions, {name: one.sae for name, one in every.items()}), Stages(progress), list[str]()  # fmt: skip
    with stages.showing():
        if corpus is not None:
            assert opened is not None, "a model is there where texts are"
            every = seen(opened, every, corpus, texts, seed, stages, facts)
        else:
            facts.append("No texts were read: which latents are dead is not known, and clusters are tested by cosine alone.")  # fmt: skip
        split, parents = splits_of(list(every.values()))
        shown = {name: one if latents is None else draw(one, latents, seed) for name, one in every.items()}
        rows = torch.cat([one.rows for one in shown.values()])
        if not len(rows):
            raise InputError(f"none of the latents of {', '.join(every)} fires on {texts} texts of the corpus; give more texts, or other ones")  # fmt: skip
        laid = layout(rows, neighbours=neighbours, least=least, seed=seed)
        firing = None
        if corpus is not None:
            from scipy.sparse import hstack

            firing: Any = hstack([one.firing for one in shown.values()], format="csc")
        tested = table_of(clusters_tested(laid.clusters, rows, firing, seed=seed))
        records = list[dict[str, Any]]()
        for one in shown.values():
            words = promoted(opened, one, stages) if opened is not None and tokens else None
            records += records_of(one, words)
    frame = table_of(records)
    for place, (name, values) in enumerate((("x", laid.places[:, 0]), ("y", laid.places[:, 1]), ("cluster", laid.clusters)), 5):  # fmt: skip
        frame.insert(place, name, values)
    frame, scores = with_labels(frame, known)
    if parents is not None:
        frame = frame.merge(parents, on=["sae", "index"], how="left")
    facts = [f"{name}: {len(shown[name].indices):,} latents of {one.width:,} at {one.hook}." for name, one in every.items()] + facts  # fmt: skip
    return LatentMap(frame, tested, split, scores, failed, tuple(facts))


def sources_of(
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
    return model, {name: (lambda source=source: source) for name, source in named.items()}


def whole(name: str, sae: SAE[Any]) -> Mapped:
    """An SAE with all of its latents but those without a direction."""
    rows = unit_rows(sae.W_dec)
    if not rows.isfinite().all():
        raise InputError(f"the decoder of {name!r} holds numbers that are not finite; it is damaged")
    there = np.flatnonzero(rows.norm(dim=-1).numpy() > 0)
    return Mapped(name, sae, rows[torch.from_numpy(there)], there)


def same_space(every: Sequence[Mapped]) -> None:
    """Raise `InputError` for SAEs whose directions cannot be compared: of other sizes, or not all of the residual stream."""
    first = every[0]
    for one in every[1:]:
        if one.rows.shape[1] != first.rows.shape[1]:
            raise InputError(f"the directions of {first.name!r} have {first.rows.shape[1]} dimensions, those of {one.name!r} {one.rows.shape[1]}; map them apart")  # fmt: skip
        if one.hook != first.hook and not (RESIDUAL.fullmatch(one.hook) and RESIDUAL.fullmatch(first.hook)):
            raise InputError(f"the directions of {first.name!r} lie at {first.hook}, those of {one.name!r} at {one.hook}, which are different spaces; map them apart")  # fmt: skip


def seen(
    model: Model,
    every: Mapping[str, Mapped],
    corpus: Corpus | Sequence[str],
    texts: int,
    seed: int,
    stages: Stages,
    facts: list[str],
) -> dict[str, Mapped]:
    """The latents that fire on some texts, and where they do; `facts` learn how many do not."""
    given = some_of(corpus if isinstance(corpus, Corpus) else Corpus.from_texts(corpus), texts, seed)
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
        alive[one.name] = Mapped(one.name, one.sae, one.rows, one.indices, firing).among(on)
    return alive


def draw(one: Mapped, n: int, seed: int) -> Mapped:
    """At most `n` latents, drawn by seed."""
    order = rng(seed, "map", one.name).permutation(len(one.indices))[:n]
    return one.among(np.sort(order))


def splits_of(every: Sequence[Mapped]) -> "tuple[pd.DataFrame, pd.DataFrame | None]":
    """What wide SAEs split of the next narrower one at the same hook, and the parent of each of their latents; None where there is no wider one."""
    import pandas as pd

    rows, parents = list[dict[str, Any]](), list[pd.DataFrame]()
    for wide in every:
        narrower = [one for one in every if one.hook == wide.hook and one.width < wide.width and len(one.indices)]
        if not narrower or not len(wide.indices):
            continue
        narrow = max(narrower, key=lambda one: one.width)
        cosines, at = (found[:, 0] for found in nearest(wide.rows, narrow.rows, 1))
        both = None if wide.firing is None or narrow.firing is None else shares(narrow.firing, wide.firing, at)
        table = pd.DataFrame({"sae": wide.name, "index": wide.indices, "parent_sae": narrow.name, "parent": narrow.indices[at], "parent_cosine": cosines, "split": cosines >= SPLIT})  # fmt: skip
        parents.append(table if both is None else table.assign(inclusion=both))
        for parent in np.unique(at[cosines >= SPLIT]).tolist():
            children = np.flatnonzero((at == parent) & (cosines >= SPLIT))
            row: dict[str, Any] = {
                "sae": narrow.name,
                "index": int(narrow.indices[parent]),
                "wide": wide.name,
                "n_children": len(children),
                "children": ", ".join(map(str, wide.indices[children].tolist())),
                "cosine": float(cosines[children].mean()),
            }
            if both is not None and narrow.firing is not None and wide.firing is not None:
                row |= {"inclusion": float(np.nanmean(both[children])), "coverage": covered(narrow.firing[:, [parent]], wide.firing[:, children])}  # fmt: skip
            rows.append(row)
    rows.sort(key=lambda row: -row["n_children"])
    return table_of(rows), pd.concat(parents, ignore_index=True).astype({"parent": "Int64"}) if parents else None


def promoted(model: Model, one: Mapped, stages: Stages) -> list[str] | None:
    """The tokens that each latent promotes, in one text; None where directions do not reach the output."""
    advance, found = stages.stage(f"promoted tokens: {one.name}", len(one.indices)), list[str]()
    for start in range(0, len(one.indices), LENS_ROWS):
        some = one.indices[start : start + LENS_ROWS].tolist()
        words = promoted_tokens(model, Latents(model, one.sae, some), SHOWN_TOKENS)
        if isinstance(words, Reason):
            return None
        found += [", ".join(repr(token) for token, _ in each.promoted) for each in words]
        advance(len(some))
    return found


def records_of(one: Mapped, words: Sequence[str] | None) -> list[dict[str, Any]]:
    """A row a latent: what is known from the SAE itself."""
    known, layer = names_of(one.sae).get("neuronpedia_id"), layer_of(one.hook)
    density = None if one.firing is None else np.asarray(one.firing.sum(axis=0)) / one.firing.shape[0]
    return [
        {"sae": one.name, "hook": one.hook, "layer": layer, "width": one.width, "index": index}
        | ({} if density is None else {"density": float(density[place])})
        | ({} if words is None else {"promoted": words[place]})
        | ({} if known is None else {"url": dashboard(known, index)})
        for place, index in enumerate(one.indices.tolist())
    ]


def with_labels(frame: "pd.DataFrame", known: "Mapping[str, pd.DataFrame]") -> "tuple[pd.DataFrame, tuple[str, ...]]":
    """The latents with their descriptions and scores, and the names of the scores; what another column is called becomes `given_…`."""
    import pandas as pd

    if not known:
        return frame, ()
    labels = pd.concat([table.assign(sae=name) for name, table in known.items()], ignore_index=True)
    labels = labels.rename(columns={c: f"given_{c}" for c in labels.columns if c not in KEYS and c in frame.columns})
    scores = tuple(str(c) for c in labels.columns if c not in KEYS)
    return frame.merge(labels, on=["sae", "index"], how="left"), scores
