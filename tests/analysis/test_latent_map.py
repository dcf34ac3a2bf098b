"""Maps of latents: what is drawn, left out, said of each latent, split; bad input; the page and the tables."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens import SAE
from sae_lens.registry import SAE_CLASS_REGISTRY
from typer.testing import CliRunner

from fade_lens import InputError, LatentMap, MissingExtraError, latent_map
from fade_lens.analysis.geometry import Layout
from fade_lens.analysis.release import Release
from fade_lens.cli import app
from fade_lens.data.descriptions import Description, Provenance
from fade_lens.explainers.base import Explanation
from fade_lens.explainers.table import Explanations
from fade_lens.report.latent_map import map_page
from tests.hub import gpt2_config, hub, publish_model, publish_sae  # noqa: F401  # pyright: ignore[reportUnusedImport]
from tests.made_up import made_up_results
from tests.neuronpedia.conftest import site  # noqa: F401  # pyright: ignore[reportUnusedImport]
from tests.neuronpedia.fake_site import FakeSite, explanation
from tests.planted import TRUE, natural_texts, planted_model, planted_sae
from tests.tiny import ANIMALS, tiny_model, tiny_sae


@pytest.fixture(autouse=True)
def flat(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """UMAP takes seconds to compile: directions lie in a row here, in clusters of three (`test_geometry` runs the real one)."""

    def stand_in(rows: torch.Tensor, **_: Any) -> Layout:
        n = np.arange(len(rows))
        return Layout(np.stack([n, -n], axis=1).astype(np.float32), np.where(n < 6, n // 3, -1))

    monkeypatch.setattr("fade_lens.analysis.latent_map.layout", stand_in)


def wide_sae() -> Any:
    """Sixteen latents: 0 and 1 have the narrow one's direction of animals, the second with noise; 2 has that of colours; 3 fires on nothing."""
    sae: Any = tiny_sae("jumprelu", d_sae=16, seed=1)
    with torch.no_grad():
        sae.b_dec.zero_()
        sae.b_enc.zero_()
        sae.threshold.fill_(1.0)
        for index, (direction, noise) in enumerate(((0, 0.0), (0, 0.4), (1, 0.0))):
            for weights in (sae.W_enc.T, sae.W_dec):
                weights[index].zero_()
                weights[index, direction] = 1.0
                weights[index, 20] = noise
        sae.W_enc[:, 3] = 0.0
    return sae


def of_two(**options: Any) -> LatentMap:
    return latent_map({"narrow": planted_sae(), "wide": wide_sae()}, model=planted_model(), corpus=natural_texts(120), progress=False, **options)  # fmt: skip


def at(found: LatentMap, sae: str, index: int) -> dict[str, Any]:
    rows: Any = found.frame
    return rows[(rows["sae"] == sae) & (rows["index"] == index)].to_dict("records")[0]


def test_every_latent_that_fires_is_on_the_map_with_what_is_known_of_it() -> None:
    labels = pd.DataFrame({"sae": "narrow", "index": [0, 1], "description": [TRUE[0], TRUE[1]], "clarity": [0.9, 0.2], "clarity_low": [0.8, 0.1]})  # fmt: skip
    found = of_two(descriptions=labels)
    assert len(found) == len(found.frame.drop_duplicates(["sae", "index"]))
    assert not {("narrow", 3), ("wide", 3)} & set(zip(found.frame["sae"], found.frame["index"], strict=True))
    assert any("narrow" in said and "silent" in said and "left out" in said for said in found.facts)
    animal = at(found, "narrow", 0)
    assert animal["description"] == TRUE[0] and animal["clarity"] == 0.9 and found.scores == ("clarity",)
    promoted = {word.strip("' ") for word in animal["promoted"].split(", ")}
    assert set(ANIMALS) <= promoted, promoted
    assert 0 < animal["density"] < 0.05 and animal["width"] == 8 and animal["layer"] == 0
    assert pd.isna(at(found, "wide", 0)["description"]) and found.colours == ("sae", "cluster", "density", "parent_cosine", "inclusion", "clarity")  # fmt: skip


def test_what_a_wide_sae_splits_is_told_with_its_parent_inclusion_and_coverage() -> None:
    found = of_two()
    same, near = at(found, "wide", 0), at(found, "wide", 1)
    assert (same["parent_sae"], same["parent"], same["inclusion"]) == ("narrow", 0, 1.0)
    assert same["parent_cosine"] == pytest.approx(1) and near["parent_cosine"] == pytest.approx(1 / 1.16**0.5, abs=1e-5)
    assert same["split"] and near["split"] and pd.isna(at(found, "narrow", 0)["parent"])
    splits: Any = found.splits
    row = splits[splits["index"] == 0].to_dict("records")[0]
    assert (row["sae"], row["wide"], row["children"], row["n_children"], row["coverage"]) == ("narrow", "wide", "0, 1", 2, 1.0)  # fmt: skip
    assert set(found.clusters["cluster"]) == {0, 1} and {"cosine_q", "lift_q", "together"} <= set(found.clusters)


def test_of_each_sae_as_many_are_drawn_by_seed_and_parents_are_still_all() -> None:
    found = of_two(latents=4)
    assert found.frame["sae"].value_counts().to_dict() == {"narrow": 4, "wide": 4}
    assert found.frame["index"].tolist() == of_two(latents=4).frame["index"].tolist()
    assert found.frame["index"].tolist() != of_two(latents=4, seed=1).frame["index"].tolist()
    assert found.splits["children"].tolist() == of_two().splits["children"].tolist()


def test_without_model_and_texts_directions_alone_are_mapped() -> None:
    found = latent_map(planted_sae(), progress=False)
    assert len(found) == 8 and not {"promoted", "density", "parent", "lift"} & {*found.frame, *found.clusters}
    assert "which latents are dead is not known" in found.facts[-1] and len(found.splits) == 0


def head(number: int) -> SAE[Any]:
    return tiny_sae(hook="blocks.0.attn.hook_z", d_in=8, meta_hook_head_index=number)


def elsewhere(hook: str, **options: Any) -> SAE[Any]:
    return tiny_sae(hook=hook, **options)


@pytest.mark.parametrize(
    ("saes", "options", "words"),
    [
        ("blocks.0.hook_resid_post", {"model": "gpt2"}, "release 'blocks.0.hook_resid_post' is not"),
        ({"a": "blocks.0.hook_resid_post"}, {}, "a map shows decoder directions, which SAEs alone have"),
        ({}, {}, "no SAE was given"),
        ({"a": planted_sae()}, {"model": "gpt2"}, "give the model itself"),
        ({"a": planted_sae()}, {"latents": 0}, "latents is 0; give at least 1"),
        ({"a": planted_sae()}, {"neighbours": 1}, "neighbours is 1; give at least 2"),
        ({"a": planted_sae(), "b": tiny_sae(d_in=16)}, {}, "'a' have 32 dimensions, those of 'b' 16"),
        ({"a": planted_sae(), "b": elsewhere("blocks.0.attn.hook_z")}, {}, "which are different spaces"),
        ({"a": planted_sae(), "b": planted_sae()}, {"descriptions": {"c": {0: "x"}}}, "'c', which is none of the SAEs"),
        ({"a": planted_sae(), "b": planted_sae()}, {"descriptions": made_up_results(3)}, "give them in a dict by the SAE's name"),
        ({"a": planted_sae(), "b": planted_sae()}, {"descriptions": {0: "x"}}, "none of the SAEs"),
        ({"a": planted_sae()}, {"descriptions": "absent.csv"}, "'absent.csv', which is no file"),
        ({"a": planted_sae()}, {"descriptions": "runs/absent"}, "'runs/absent', which is no file or folder"),
        ({"a": planted_sae()}, {"descriptions": {8: "x"}}, "latent 8 of 'a', which has 8"),
        ({"a": planted_sae()}, {"corpus": ["the cat"]}, "give model too"),
        ({"a": planted_sae()}, {"corpus": [], "model": planted_model()}, "text"),
        ({"a": head(0), "b": head(1)}, {}, "blocks.0.attn.hook_z, head 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_mapped_is_told(saes: Any, options: Any, words: str) -> None:
    with pytest.raises(InputError) as told:
        latent_map(saes, progress=False, **options)
    assert words in str(told.value), told.value


def test_saes_of_which_nothing_fires_or_whose_decoder_is_damaged_are_told() -> None:
    silent: Any = planted_sae()
    damaged: Any = planted_sae()
    with torch.no_grad():
        silent.threshold.fill_(1e9)
        damaged.W_dec[2, 3] = torch.nan
    with pytest.raises(InputError, match="none of the latents of a fires on 50 texts"):
        latent_map({"a": silent}, model=planted_model(), corpus=natural_texts(50), progress=False)
    found = latent_map({"bad": damaged, "good": planted_sae()}, progress=False)
    assert set(found.frame["sae"]) == {"good"} and "not finite" in found.failed["bad"]


def test_without_the_extra_it_is_told_which_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"fade-lens\[geometry\]"):
        latent_map(planted_sae(), progress=False)


def test_labels_come_from_results_dicts_tables_and_a_releases_folder(tmp_path: Path) -> None:
    results = made_up_results(2)
    one = latent_map({"a": planted_sae()}, descriptions=results, progress=False)
    assert at(one, "a", 7)["description"] == results.items[1].description.text
    for kept in (results.save(tmp_path / "kept.sqlite"), results.to_folder(tmp_path / "run").parent):
        again: Any = latent_map({"a": planted_sae()}, descriptions=kept, progress=False).frame
        assert again.equals(one.frame)
    assert set(one.scores) == {spec.name for spec in results.specs}
    two = {"a": planted_sae(), "b/c": planted_sae()}
    assert at(latent_map(two, descriptions={"a": {0: "x"}, "b/c": {1: "y"}}, progress=False), "b/c", 1)["description"] == "y"  # fmt: skip
    results.to_folder(tmp_path / Release.place("b/c"))
    assert set(latent_map(two, descriptions=tmp_path, progress=False).scores) == set(one.scores)
    table = tmp_path / "labels.csv"
    table.write_text("sae,index,description,score,x,note\na,0,cats,0.5,3,n\na,2,dogs,,4,m\nb/c,0,owls,0.25,5,k\n")
    found = latent_map(two, descriptions=table, progress=False)
    assert found.scores == ("score", "given_x") and at(found, "a", 2)["description"] == "dogs"
    assert at(found, "b/c", 0)["score"] == 0.25 and np.isnan(at(found, "a", 2)["score"])


def test_saes_of_every_architecture_and_kind_of_weights_are_mapped_and_one_that_does_not_fit_is_told() -> None:
    saes = {kind: tiny_sae(kind, d_sae=16) for kind in SAE_CLASS_REGISTRY}
    saes |= {"half": tiny_sae(d_sae=16).to(torch.bfloat16), "huge": tiny_sae(d_sae=16), "other": tiny_sae(hook="blocks.7.hook_resid_post"), "empty": tiny_sae(d_sae=16)}  # fmt: skip
    with torch.no_grad():
        cast(Any, saes["huge"]).W_dec.mul_(1e30)
        cast(Any, saes["empty"]).W_dec.zero_()
    found = latent_map(saes, model=tiny_model(), corpus=natural_texts(20), progress=False)
    assert set(found.failed) == {"other", "empty"}, found.failed
    assert set(found.frame["sae"]) == set(saes) - set(found.failed)
    assert "blocks.7" in found.failed["other"] and "nothing but zeros" in found.failed["empty"]
    bare: Any = latent_map(saes, progress=False)
    assert set(bare.failed) == {"empty"} and (bare.frame.groupby("sae").size() >= 16).all()
    assert found.frame.equals(latent_map(saes, model=tiny_model(), corpus=natural_texts(20), progress=False).frame)


def test_a_latent_that_overflows_everywhere_does_not_fire() -> None:
    broken: Any = planted_sae()
    with torch.no_grad():
        broken.W_enc[:, 4] = torch.nan
    found: Any = latent_map({"a": broken}, model=planted_model(), corpus=natural_texts(60), progress=False)
    assert 0 in found.frame["index"].tolist() and 4 not in found.frame["index"].tolist()


def test_columns_of_every_kind_become_scores_or_are_left_out_and_never_hide_ours(tmp_path: Path) -> None:
    table = pd.DataFrame({
        "latent": ["layer/0", "layer/1", "layer/2", None], "label": ["cats", None, "owls", ""], "split": [1, 2, 3, 4], "given_split": 5.0, "parent": 1.0, "promoted": [0.1, 0.2, None, 0.3],
        "right": [True, False, True, True], "far": [np.inf, 1.0, -np.inf, 0], "rare": [None, None, 0.5, None], "words": ["1", "b", "c", "d"], 7: [1, 2, 3, 4], "lists": [[1], [2], [3], []],
        "when": pd.Timestamp("2026-01-01"), "decimal": ["0.5", " 1e-3", "", "nan"], "note": None,
    })  # fmt: skip
    saes, paths = {"narrow": planted_sae(), "wide": wide_sae()}, [tmp_path / "t.csv", tmp_path / "t.parquet"]
    found = latent_map(saes, descriptions={"narrow": table}, progress=False)
    assert found.scores == ("given_given_split", "given_split", "given_parent", "given_promoted", "right", "far", "rare", "7", "decimal")  # fmt: skip
    first, third = at(found, "narrow", 0), at(found, "narrow", 2)
    assert (first["description"], first["right"], first["given_given_split"]) == ("cats", 1.0, 1.0)
    assert pd.isna(at(found, "narrow", 1)["description"]) and third["description"] == "owls" and third["rare"] == 0.5
    assert at(found, "wide", 0)["parent"] == 0 and found.colours.count("parent_cosine") == 1
    found.to_html(found.to_csv(tmp_path / "map.csv").with_suffix(".html"))
    plain = pd.DataFrame({"clarity": [0.25, 0.5]}, index=pd.Index([2, 0], name="latent"))
    plain.to_csv(paths[0])
    plain.reset_index().to_parquet(paths[1])
    for source in (plain, *paths):
        alone = latent_map({"a": planted_sae()}, descriptions=source, progress=False)
        assert alone.scores == ("clarity",) and at(alone, "a", 2)["clarity"] == 0.25, source


def test_of_several_descriptions_the_first_is_shown_and_files_are_read_as_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "layers.0_latent2.txt").write_text("from a folder")
    (tmp_path / "labels.json").write_text('{"2": "from JSON"}')
    explained = Explanations(tuple(Explanation(2, Description(2, text, about), provenance=about) for text in ("first", "second") for about in [Provenance("explained", method=text)]))  # fmt: skip
    several = pd.DataFrame({"index": [2, 2], "description": ["first", "second"], "score": [0.5, 0.25]})
    for given, text in (({2: "half \ud800"}, "half ?"), (tmp_path / "texts", "from a folder"), (tmp_path / "labels.json", "from JSON"), (explained, "first"), (explained.to_csv(tmp_path / "e.csv"), "first"), (several, "first")):  # fmt: skip
        found = latent_map({"a": planted_sae()}, descriptions=given, progress=False)
        assert len(found) == 8 and at(found, "a", 2)["description"] == text


def test_descriptions_of_an_sae_that_could_not_be_loaded_or_that_neuronpedia_lacks_hold_up_no_map(site: FakeSite) -> None:  # noqa: F811  # fmt: skip
    site.add("batch-0.jsonl.gz", [explanation(0, "cats")])
    saes = {"known": planted_sae(), "absent": planted_sae(), "unnamed": planted_sae(), "broken": planted_sae()}
    for name, source in (("known", "6-res-jb"), ("absent", "9-res-jb")):
        saes[name].cfg.metadata.neuronpedia_id = f"gpt2-small/{source}"
    with torch.no_grad():
        cast(Any, saes["broken"]).W_dec[0] = torch.inf
    found = latent_map(saes, descriptions="neuronpedia", progress=False)
    assert at(found, "known", 0)["description"] == "cats" and found.scores == () and set(found.failed) == {"broken"}
    said = " ".join(found.facts)
    assert "absent has no descriptions on Neuronpedia" in said and "unnamed has no descriptions on Neuronpedia" in said
    table = pd.DataFrame({"sae": ["known", "broken"], "index": 0, "description": "x"})
    assert at(latent_map(saes, descriptions=table, progress=False), "known", 0)["description"] == "x"


def test_a_single_sae_without_splits_or_clusters_has_tables_with_columns(tmp_path: Path) -> None:
    one = latent_map(tiny_sae(d_sae=1), progress=False)
    assert len(one) == 1 and "wide" in one.splits and "1 latent<" in one.to_html(tmp_path / "map.html").read_text()
    assert list(pd.read_csv(one.to_csv(tmp_path / "map.csv").with_name("map-splits.csv"))) == list(one.splits)


def test_the_page_holds_hostile_texts_as_data_and_many_texts_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    hostile = "</script><script>alert(1)</script> <b>$x$</b>\u2028"
    found = latent_map(planted_sae(), descriptions={0: hostile}, progress=False)
    page = found.to_html(tmp_path / "map.html").read_text(encoding="utf-8")
    assert "alert(1)</script> <b>" not in page and not (tmp_path / "map_texts").exists()
    monkeypatch.setattr("fade_lens.report.latent_map.INLINE", 4)
    monkeypatch.setattr("fade_lens.report.latent_map.SHARD", 3)
    page = found.to_html(tmp_path / "many.html").read_text(encoding="utf-8")
    files = sorted(path.name for path in (tmp_path / "many_texts").iterdir())
    assert files == ["0000.js", "0001.js", "0002.js"] and "alert" not in page
    first = (tmp_path / "many_texts" / "0000.js").read_text(encoding="utf-8")
    assert "</script>" not in first and json.loads(first.removeprefix("fadeLensTexts(0,").removesuffix(");\n"))[0][0].startswith("</script>")  # fmt: skip
    monkeypatch.setattr("fade_lens.report.latent_map.SHARD", 8)
    (tmp_path / "many_texts" / "mine.js").write_text("kept")
    found.to_html(tmp_path / "many.html")
    assert sorted(path.name for path in (tmp_path / "many_texts").iterdir()) == ["0000.js", "mine.js"]
    assert found.to_csv(tmp_path / "map.csv").is_file() and (tmp_path / "map-clusters.csv").is_file()


def test_places_are_on_the_page_as_they_are() -> None:
    found = latent_map(planted_sae(), progress=False)
    found.frame["x"] = [12.345, -10.017, *range(6)]
    page, _ = map_page(found, "texts")
    assert '"x":[12.345,-10.017,0.0' in page


def test_the_figure_is_coloured_by_any_column_and_others_are_told() -> None:
    found = of_two()
    drawn: dict[str, Any] = {name: found.plot(name).data for name in ("sae", "density", "cluster")}
    assert len(drawn["sae"]) == 2 and len(drawn["density"][0].marker.color) == len(found)
    assert len(set(drawn["cluster"][0].marker.color)) == 3
    with pytest.raises(InputError, match="colour is 'dencity'; give one of sae, cluster, density"):
        found.plot("dencity")


def test_a_release_goes_from_the_shell_to_a_page_and_what_cannot_be_loaded_is_told(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811  # fmt: skip
    monkeypatch.setenv("COLUMNS", "200")
    publish_model(hub, "gpt2", gpt2_config())
    sae = tiny_sae(hook="blocks.0.hook_resid_pre", d_sae=16)
    sae.cfg.metadata.model_name = "gpt2-small"
    publish_sae(hub, "gpt2-small-res-jb", "blocks.0.hook_resid_pre", sae)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(natural_texts(60)))
    asked = ["map", "gpt2-small-res-jb", "--sae-ids", "blocks.[01].hook_resid_pre", "--corpus", str(corpus), "--out", str(tmp_path / "out")]  # fmt: skip
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "NOT MAPPED blocks.1.hook_resid_pre" in done.output and (tmp_path / "out" / "map.html").is_file()
    table: Any = pd.read_csv(tmp_path / "out" / "map.csv")
    assert set(table["sae"]) == {"blocks.0.hook_resid_pre"} and table["promoted"].notna().all()
    assert table["url"][0].endswith(f"/gpt2-small/0-res-jb/{table['index'][0]}")


def test_folders_of_one_name_are_two_saes_which_must_want_one_model(tmp_path: Path) -> None:
    folders, out = [tmp_path / "a" / "sae", tmp_path / "b" / "sae"], tmp_path / "out.of.two"
    for folder, ways in zip(folders, ({}, {"center_unembed": True}), strict=True):
        tiny_sae(d_sae=4, meta_model_from_pretrained_kwargs=ways).save_model(folder)
    asked = ["map", *(word for folder in folders for word in ("--sae", str(folder))), "--out", str(out)]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert set(pd.read_csv(out / "map.csv")["sae"]) == {str(folder) for folder in folders}
    done = CliRunner().invoke(app, [*asked, "--model", "demo"])
    assert "loaded in different ways" in done.output + str(done.exception)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([], "give a release, or --sae with the folder of an SAE; got neither"),
        (["gpt2-small-res-jb", "--sae", "x"], "got both"),
        (["--sae", "x"], "--sae 'x' does not exist"),
        (["--sae", "demo", "--corpus", "demo"], "give --model too"),
        (["gpt2-small-res-jb", "--descriptions", "absent.csv"], "absent.csv"),
        (["gpt2-small-res-jbb", "--no-tokens"], "gpt2-small-res-jb"),
        (["gpt2-small-res-jb", "--sae-ids", "blocks.99*", "--no-tokens"], "matches none of the"),
    ],
)
def test_the_command_tells_what_cannot_be_used(asked: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["map", *asked])
    said = done.output + str(done.exception)
    assert done.exit_code != 0 and words in said, said
