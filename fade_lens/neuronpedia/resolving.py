"""Which source on Neuronpedia holds an SAE's features: from its metadata, its release, or the repository it lies in."""

import logging
from collections.abc import Iterable
from typing import Any

from fade_lens._util.errors import InputError, suggest
from fade_lens.data.descriptions import Description
from fade_lens.neuronpedia.ids import SourceId

logger = logging.getLogger(__name__)


def resolve(
    sae: Any = None,
    *,
    release: str | None = None,
    sae_id: str | None = None,
    repo_id: str | None = None,
    path: str | None = None,
) -> SourceId:
    """The Neuronpedia id of an SAE, of an SAELens release and SAE id, or of a repository and a path in it.

    Often two releases hold the same weights and only one of them an id, so a release without one is looked up by its repository.

    Args:
        sae: a `sae_lens` SAE, or an id such as "gpt2-small/8-res-jb", which is only checked.

    Raises:
        InputError: nothing is known about it; says what to give instead.
    """
    if isinstance(sae, SourceId):
        return sae
    if isinstance(sae, str):
        return SourceId.parse(sae)
    noted = noted_names(sae)
    if "neuronpedia_id" in noted:
        return SourceId.parse(noted["neuronpedia_id"])
    release, sae_id = release or noted.get("release"), sae_id or noted.get("sae_id")
    if release is not None and sae_id is not None:
        return of_release(release, sae_id)
    if repo_id is not None and path is not None:
        return of_repository(repo_id, path)
    raise InputError(
        "the SAE's metadata holds no neuronpedia_id, and SAEs do not keep the release they came from; "
        'give the id ("gpt2-small/8-res-jb"), or release= and sae_id=, or repo_id= and path='
    )


def names_of(sae: Any) -> dict[str, Any]:
    """What an SAE is called, as far as its metadata tells: `release` and `sae_id` of SAELens, `neuronpedia_id`, and the `l0` that SAELens lists.

    SAELens keeps no release on an SAE: `fade-lens evaluate` notes its options there, and anybody can
    (`sae.cfg.metadata.release = "gpt2-small-res-jb"`). Neurons, given by their hook, have no such names.
    """
    if isinstance(sae, str):
        return {}
    names: dict[str, Any] = noted_names(sae)
    try:
        names["neuronpedia_id"] = str(resolve(sae))
    except InputError as error:
        names.pop("neuronpedia_id", None)
        logger.debug("no Neuronpedia id: %s", error)
    entry = sae_directory().get(names["release"]) if {"release", "sae_id"} <= set(names) else None
    if entry is not None and (l0 := entry.expected_l0.get(names["sae_id"])):
        names["l0"] = float(l0)
    return names


def tell_of_another(descriptions: Iterable[Description], sae: Any) -> None:
    """Warn, once an SAE, where descriptions that were imported from Neuronpedia are of another source than the SAE's own there.

    It is no error: one SAE may have several ids. Nothing is told of what has no id.
    """
    theirs = sorted({d.provenance.source for d in descriptions if d.provenance.kind == "neuronpedia"})
    own = names_of(sae).get("neuronpedia_id") if theirs else None
    if own and (others := [place for place in theirs if place.lower() != own.lower()]):
        from fade_lens.subject.features import tell_once  # an SAE is there, and with it torch

        tell_once(
            sae,
            f"The descriptions are those of {', '.join(others)} on Neuronpedia, and the SAE is {own}: each is held against another SAE's feature of "
            "the same number, unless both ids are of one SAE (neuronpedia.check_mapping, or fade-lens audit, tells)",
        )


def noted_names(sae: Any) -> dict[str, str]:
    """The names in an SAE's metadata; whatever is missing there reads as None."""
    metadata = getattr(getattr(sae, "cfg", None), "metadata", None)
    told = {key: metadata[key] for key in ("release", "sae_id", "neuronpedia_id")} if metadata is not None else {}
    return {key: value for key, value in told.items() if isinstance(value, str) and value}


def of_release(release: str, sae_id: str) -> SourceId:
    """The id that SAELens' directory has for a release's SAE, or for the same weights under another release."""
    directory = sae_directory()
    entry = directory.get(release)
    if entry is None:
        if any(known.repo_id == release for known in directory.values()):
            return of_repository(release, sae_id)  # SAELens takes a repository for a release
        raise InputError(f"release {release!r} is not in SAELens' directory{suggest(release, directory)}")
    if sae_id not in entry.saes_map:
        raise InputError(f"release {release!r} has no SAE {sae_id!r}{suggest(sae_id, entry.saes_map)}")
    if found := entry.neuronpedia_id.get(sae_id):
        return SourceId.parse(str(found))
    return of_repository(entry.repo_id, entry.saes_map[sae_id])


def of_repository(repo_id: str, path: str) -> SourceId:
    """The id of weights by where they lie; of several the shortest, which is the canonical one."""
    found: set[str] = set()
    for entry in sae_directory().values():
        if entry.repo_id == repo_id:
            names = [name for name, place in entry.saes_map.items() if place == path]
            found |= {str(entry.neuronpedia_id[name]) for name in names if entry.neuronpedia_id.get(name)}
    if not found:
        raise InputError(
            f"SAELens' directory has no Neuronpedia id for {path!r} of {repo_id!r}; "
            "if Neuronpedia has these features, give their id, such as gpt2-small/8-res-jb"
        )
    chosen = min(found, key=lambda name: (len(name), name))
    if len(found) > 1:
        logger.info("%s of %s is on Neuronpedia as %s; %s is used", path, repo_id, ", ".join(sorted(found)), chosen)
    return SourceId.parse(chosen)


def sae_directory() -> dict[str, Any]:
    """SAELens' directory of releases, without any weights."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    return dict(get_pretrained_saes_directory())
