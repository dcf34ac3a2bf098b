"""What is wrong with descriptions at sight: no language model, no activations of one's own."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from fade_lens._util.reasons import Flag
from fade_lens._util.wording import QUOTED, has_unspaced, one_line, same_words
from fade_lens.data.descriptions import DESCRIBED
from fade_lens.data.leaks import READ, leaked
from fade_lens.neuronpedia.frames import NONE
from fade_lens.neuronpedia.records import Imported, Score, Stats

if TYPE_CHECKING:
    import pandas as pd

LONGEST = 512
"""Characters; what is longer is an explainer's monologue."""
DENSE = 0.1

KINDS: dict[str, str] = {
    "missing": "looked up, has no description",
    "empty": "no words in it",
    "prompt_leak": "the explainer's prompt or reasoning was left in it",
    "overlong": f"over {LONGEST} characters",
    "single_token_fallback": "one token, which explainers give when they find nothing to say",
    "negative_activations": "the feature takes negative values, which explainers do not look at",
    "duplicate_description": "other features of the source have the same",
    "generic": "it says nothing that could be tested",
    "dense": f"the feature fires on over {DENSE:.0%} of tokens",
    "dead": "the feature never fired",
    "mixed_explainer_in_source": "another explainer than most of the source's: not comparable",
    "stale_score": "a stored score that is older than the description, or may be a failed run",
    "index_out_of_range": "the SAE has no such feature",
    "sae_mismatch": "the source was made with another SAE",
}
"""Every flag and what it means."""

PLACEHOLDERS = frozenset(
    {"", "n/a", "na", "nan", "none", "null", "undefined", "todo", "tbd", "unknown", "no explanation", "no description"}
)
SUBWORD = re.compile(r"^(?:[Ġ▁Ċ]|##)|�")
SPECIAL = re.compile(r"[<\[]\|?/?[\w▁]+\|?[>\]]")
"""A label that is the name of a special token."""
# Explainers that answer with a token where they find no words.
TOKEN_EXPLAINERS = re.compile(r"^(?:np_)?(?:max|acts?)[-_]", re.I)
SHORT_TOKEN = 3


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOP = _words(
    """a an and any are as at be by for from in into is it its of on or other such than that the their them these they this those to
    used various with within which when where"""
)
GENERIC = _words(
    """abstract activates activity all associated broad certain character characters common concept concepts content context contexts
    describing different discussing diverse element elements english entities everyday expressions feature features find fires
    frequent general generic idea ideas information instances items kind kinds language letters linguistic many mention mentions
    miscellaneous mixed multiple neuron nothing number numbers occurrences often particular parts patterns phrase phrases pieces
    punctuation random range references referring related relating sentence sentences sequences several some something sorts
    specific statements string strings structure structures symbols terms text texts text-based thing things token tokens topic
    topics type types unrelated usage variety wide word words writing written"""
)


def flags(
    table: "pd.DataFrame",
    *,
    stats: Mapping[int, Stats] | None = None,
    n_features: int | None = None,
    mismatch: str = "",
) -> "pd.DataFrame":
    """The table with a column `flags`: for each row a tuple of `Flag`s, empty where nothing is wrong at sight (see `KINDS`).

    Args:
        table: of `descriptions`.
        stats: what Neuronpedia knows of the features (`Imported.stats`): without it dense, dead and negative features are not seen.
        n_features: number of the SAE's features.
        mismatch: how the SAE differs from the source's, from `mismatches`.
    """
    rows = cast(Any, table).to_dict("records")
    source = _Source(rows, stats or {}, n_features, mismatch)
    flagged = table.copy()
    flagged["flags"] = [tuple(found_in(row, source)) for row in rows]
    flagged.attrs = dict(table.attrs)
    return flagged


class _Source:
    """What is known of all descriptions together."""

    def __init__(
        self, rows: list[dict[str, Any]], stats: Mapping[int, Stats], n_features: int | None, mismatch: str
    ) -> None:
        self.stats, self.n_features, self.mismatch = stats, n_features, mismatch
        same: dict[str, set[int]] = defaultdict(set)
        described = [row for row in rows if row["state"] == DESCRIBED]
        for row in described:
            if key := same_words(row["description"]):
                same[key].add(row["index"])
        self.indices = {key: sorted(indices) for key, indices in same.items() if len(indices) > 1}
        self.explainers = Counter(maker for row in described if any(maker := maker_of(row)))

    def maker(self) -> tuple[str, str] | None:
        """The explainer of most descriptions, where there are several."""
        return self.explainers.most_common(1)[0][0] if len(self.explainers) > 1 else None


def found_in(row: Mapping[str, Any], source: _Source) -> list[Flag]:
    """The flags of one row."""
    found = [Flag(kind, why) for kind, test in TESTS.items() if (why := test(row, source))]
    kinds = {flag.kind for flag in found}
    # What is empty, or one token, is not generic as well.
    hidden = {"generic"} if "single_token_fallback" in kinds else set[str]()
    if kinds & {"empty", "prompt_leak"}:
        hidden = {"generic", "single_token_fallback"}
    return [flag for flag in found if flag.kind not in hidden]


def text_of(row: Mapping[str, Any]) -> str:
    """The description, "" where there is none."""
    return one_line(row["description"])[:READ] if row["state"] == DESCRIBED else ""


def missing(row: Mapping[str, Any], _: _Source) -> str:
    return KINDS["missing"] if row["state"] == NONE else ""


def empty(row: Mapping[str, Any], _: _Source) -> str:
    if row["state"] != DESCRIBED:
        return ""
    text = text_of(row).strip(" .\"'")
    return f"{text_of(row)!r:.40} has no words in it" if text.lower() in PLACEHOLDERS else ""


def prompt_leak(row: Mapping[str, Any], _: _Source) -> str:
    found = leaked(str(row["description"])) if row["state"] == DESCRIBED else ""
    return f"holds {found!r:.60}, the explainer's prompt or reasoning" if found else ""


def overlong(row: Mapping[str, Any], _: _Source) -> str:
    length = len(one_line(row["description"])) if row["state"] == DESCRIBED else 0
    return f"{length} characters" if length > LONGEST else ""


def single_token_fallback(row: Mapping[str, Any], source: _Source) -> str:
    text = text_of(row)
    bare = text.strip("\"'“”‘’`「」『』«»")
    if not bare or " " in bare or SPECIAL.fullmatch(bare):
        return ""
    stats = source.stats.get(row["index"])
    top = (stats.top_token or "").strip("Ġ▁ ") if stats is not None else ""
    if top and top.lower() == bare.strip("Ġ▁").lower():
        return f"only the token of the largest activation, {bare!r:.40}"
    # In many scripts a word of two or three characters says something, and in some a phrase has no blank in it.
    unspaced = has_unspaced(bare)
    short = len(bare) <= (SHORT_TOKEN if bare.isascii() else 1)
    fallback = SUBWORD.search(bare) or short or bare.lower() in STOP or not any(map(str.isalpha, bare))
    if fallback or (TOKEN_EXPLAINERS.match(str(row["type_name"])) and not unspaced):
        return f"only one token, {bare!r:.40}"
    return ""


def negative_activations(row: Mapping[str, Any], source: _Source) -> str:
    stats = source.stats.get(row["index"])
    if stats is None or stats.min_activation is None or stats.min_activation >= 0:
        return ""
    return f"stored activations go down to {stats.min_activation:.3g}"


def duplicate_description(row: Mapping[str, Any], source: _Source) -> str:
    same = source.indices.get(same_words(row["description"])) if row["state"] == DESCRIBED else None
    if same:
        return f"the same as of {listed(same, row['index'])}"
    return f"given {row['copies']} times" if row["copies"] > 1 else ""


def generic(row: Mapping[str, Any], _: _Source) -> str:
    if QUOTED.search(text_of(row)):
        return ""
    words = words_of(text_of(row))
    said = [word for word in words if word not in STOP and word not in GENERIC]
    return "no word of it says what to look for" if words and not said else ""


def dense(row: Mapping[str, Any], source: _Source) -> str:
    stats = source.stats.get(row["index"])
    rate = stats.frac_nonzero if stats is not None else None
    return f"fires on {rate:.1%} of tokens" if rate is not None and rate > DENSE else ""


def dead(row: Mapping[str, Any], source: _Source) -> str:
    stats = source.stats.get(row["index"])
    if stats is None:
        return ""
    silent = stats.frac_nonzero == 0 or (stats.max_activation == 0 and not stats.frac_nonzero)
    return "never fired on Neuronpedia's texts" if silent and not stats.min_activation else ""


def mixed_explainer_in_source(row: Mapping[str, Any], source: _Source) -> str:
    most = source.maker()
    maker = maker_of(row)
    if row["state"] != DESCRIBED or most is None or maker == most or not any(maker):
        return ""
    return f"by {' '.join(filter(None, maker))}, most are by {' '.join(filter(None, most))}"


def stale_score(row: Mapping[str, Any], _: _Source) -> str:
    for score in cast(tuple[Score, ...], row["scores"] or ()):
        if score.created_at and row["created_at"] and score.created_at < row["created_at"]:
            return f"{score.kind} of {score.created_at[:10]} is older than the description, of {str(row['created_at'])[:10]}"
        if score.value == 0 and not score.detailed:
            return f"{score.kind} is 0 without details: the run may have failed"
    return ""


def index_out_of_range(row: Mapping[str, Any], source: _Source) -> str:
    n = source.n_features
    return f"feature {row['index']}, the SAE has {n}" if n is not None and not 0 <= row["index"] < n else ""


def sae_mismatch(_: Mapping[str, Any], source: _Source) -> str:
    return source.mismatch


TESTS: dict[str, Callable[[Mapping[str, Any], _Source], str]] = {
    test.__name__: test
    for test in (
        missing, empty, prompt_leak, overlong, single_token_fallback, negative_activations, duplicate_description, generic,
        dense, dead, mixed_explainer_in_source, stale_score, index_out_of_range, sae_mismatch,
    )
}  # fmt: skip


def mismatches(found: Imported, sae: Any) -> str:
    """How an SAE differs from what the source's `source.jsonl` (`found.config`) says about its own, in a line; empty where it does not."""
    differences: list[str] = []
    config, metadata = saelens_config(found.config), sae.cfg.metadata
    for key, ours in (
        ("d_sae", sae.cfg.d_sae),
        ("d_in", sae.cfg.d_in),
        ("architecture", sae.cfg.architecture()),
        ("hook_name", metadata.get("hook_name")),
        ("prepend_bos", metadata.get("prepend_bos")),
    ):
        theirs = config.get(key)
        if theirs is not None and ours is not None and str(theirs) != str(ours):
            differences.append(f"{key} is {theirs} there, {ours} here")
    return "; ".join(differences)


def saelens_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The SAE's configuration in a `source.jsonl`, where it may be JSON in a string, flat or with nested metadata."""
    raw = config.get("saelensConfig")
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except ValueError:
            raw = None
    if not isinstance(raw, dict):
        return {}
    flat = cast(dict[str, Any], raw)
    nested = flat.get("metadata")
    return {**flat, **(cast(dict[str, Any], nested) if isinstance(nested, dict) else {})}


def maker_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """Who wrote a description: the model and the method."""
    return str(row["explanation_model_name"]), str(row["type_name"])


def words_of(text: Any) -> list[str]:
    """The words of a text, in small letters."""
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", str(text or "").lower())


def listed(indices: list[int], but: int, most: int = 5) -> str:
    """Some of the feature indices, but one, for a sentence."""
    # Half of a source may have the same text: they are not all gone through for each.
    shown = [index for index in indices[: most + 1] if index != but][:most]
    others = len(indices) - 1
    more = f" and {others - len(shown)} more" if others > len(shown) else ""
    return f"feature{'s' if others > 1 else ''} {', '.join(map(str, shown))}{more}"


def kinds_of(found: tuple[Flag, ...]) -> tuple[str, ...]:
    """The kinds of flags, without the reasons."""
    return tuple(flag.kind for flag in found)
