"""Legacy exports, API answers, dashboard batches, folders, plain tables, and finding an SAE's id."""

import gzip
import json

import pandas as pd
import pytest

from fade_lens import Fade, neuronpedia
from fade_lens._util.errors import InputError
from fade_lens.cli.options import open_sae
from fade_lens.neuronpedia import NeuronpediaError, links
from fade_lens.neuronpedia.errors import NotThereError
from fade_lens.neuronpedia.resolving import names_of
from tests.fake_judge import FakeJudge
from tests.neuronpedia.fake_site import MODEL, REMOVED, SOURCE, explanation, packed
from tests.planted import TRUE, judge_of, natural_texts, planted_model, planted_sae, rule, writer
from tests.tiny import tiny_sae

ID = f"{MODEL}/{SOURCE}"
LEGACY = [
    {"modelId": MODEL, "layer": SOURCE, "index": "0", "description": "cats", "explanationModelName": "gpt-3.5-turbo", "typeName": "oai_token-act-pair"},
    {"modelId": MODEL, "layer": SOURCE, "index": "3", "description": "dogs", "explanationModelName": "gpt-3.5-turbo", "typeName": "oai_token-act-pair"},
    {"modelId": MODEL, "layer": SOURCE, "index": "3", "description": "hounds", "explanationModelName": "gpt-4", "typeName": "oai_token-act-pair"},
]  # fmt: skip
FEATURE = {
    "modelId": MODEL,
    "layer": SOURCE,
    "index": "204",
    "maxActApprox": 31.5,
    "frac_nonzero": 0.0012,
    "pos_str": ["time"],
    "neg_str": ["cat"],
    "activations": [
        {"tokens": ["<|endoftext|>", "The", " time"], "values": [0, 0, 31.5], "maxValue": 31.5, "maxValueTokenIndex": 2, "binMin": -1, "binMax": -1, "binContains": -1},
        {"tokens": ["broken"], "values": [1, 2]},
        {"tokens": ["a", "b"], "values": [-0.5, 0]},
    ],
    "explanations": [
        {"id": "cl1", "description": "stop words", "explanationModelName": "gpt-3.5-turbo", "typeName": "oai_token-act-pair",
         "scores": [{"value": 0, "explanationScoreTypeName": "recall_alt", "explanationScoreModelName": "gpt-4o-mini", "jsonDetails": "{}"}]},
        {"id": "cl2", "description": "time-related phrases", "explanationModelName": "gpt-4o-mini", "typeName": "oai_token-act-pair",
         "scores": [{"value": 0.81, "explanationScoreTypeName": "eleuther_fuzz", "explanationScoreModelName": "gpt-4o-mini", "jsonDetails": '{"n": 3}'},
                    {"value": None, "explanationScoreTypeName": "eleuther_recall"}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("shape", [LEGACY, {"explanationsCount": 3, "explanations": LEGACY}])
def test_the_legacy_export_in_both_shapes(tmp_path, shape):
    path = tmp_path / "gpt2-small-6-res-jb.json"
    path.write_text(json.dumps(shape))
    table = neuronpedia.descriptions(path, [0, 1, 3])
    assert table[["index", "state"]].values.tolist() == [
        [0, "described"],
        [1, "none"],
        [3, "described"],
        [3, "described"],
    ]
    assert table.attrs["source"] == ID and table["explanation_model_name"].tolist()[3] == "gpt-4"


def test_the_legacy_endpoint_says_where_its_data_went(site, tmp_path):
    with pytest.raises(NeuronpediaError, match=r"was removed; its data is now at .*prefix=v1/.*descriptions\("):
        site.web.json(f"{site.url}/api/explanation/export?modelId=a&saeId=b")
    path = tmp_path / "export.json"
    path.write_text(json.dumps(REMOVED))  # what a script saved that did not look at the status
    with pytest.raises(InputError, match="the endpoint was removed"):
        neuronpedia.descriptions(path)


def test_one_feature_from_the_api(site):
    site.features[f"{ID}/204"] = FEATURE
    found = neuronpedia.feature(ID, 204, web=site.web)
    # Nested descriptions carry no index, model or source of their own.
    assert [(r.index, r.model_id, r.source_id, r.explanation_id) for r in found.rows] == [
        (204, MODEL, SOURCE, "cl1"),
        (204, MODEL, SOURCE, "cl2"),
    ]
    stats = found.stats[204]
    assert (stats.frac_nonzero, stats.max_activation, stats.min_activation, stats.top_token) == (
        0.0012,
        31.5,
        -0.5,
        " time",
    )
    assert len(found.activations) == 2  # the broken one is left out
    assert [(s.kind, s.value, s.detailed) for r in found.rows for s in r.scores] == [
        ("recall_alt", 0.0, False),
        ("eleuther_fuzz", 0.81, True),
    ]
    neuronpedia.feature(ID, 204, web=site.web)
    assert site.fetched("/api/feature/") == 1  # kept on disk


def test_the_api_is_asked_only_for_what_the_bulk_data_lacks(site):
    site.features[f"{ID}/204"] = FEATURE
    site.add(
        "batch-0.jsonl.gz",
        [explanation(204, "time-related phrases", id="cl2"), explanation(204, "stop words", id="other")],
    )
    assert len(neuronpedia.descriptions(ID, [204], web=site.web)) == 2 and site.fetched("/api/feature/") == 0
    table = neuronpedia.descriptions(ID, [204], scores=True, web=site.web)
    kinds = [[s.kind for s in scores] for scores in table["scores"]]
    assert kinds == [["eleuther_fuzz"], ["recall_alt"]]  # by id, else by text
    site.features["other/7-x/1"] = {**FEATURE, "modelId": "other", "layer": "7-x", "index": "1"}
    one = neuronpedia.descriptions("other/7-x", [1], web=site.web)
    assert one["description"].tolist() == ["stop words", "time-related phrases"]
    with pytest.raises(InputError, match="no descriptions of 'other/7-x'"):
        neuronpedia.descriptions("other/7-x", range(51), web=site.web)
    with pytest.raises(NotThereError, match="no feature 2"):
        neuronpedia.descriptions("other/7-x", [2], web=site.web)


def test_an_api_answer_in_a_file(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps(FEATURE))
    (tmp_path / "many.jsonl").write_text("\n".join(json.dumps({**FEATURE, "index": i}) for i in (204, 205)))
    assert neuronpedia.descriptions(tmp_path / "one.json")["index"].tolist() == [204, 204]
    assert neuronpedia.descriptions(tmp_path / "many.jsonl")["index"].tolist() == [204, 204, 205, 205]


def test_dashboard_batches_have_statistics_but_nobody_looked_for_descriptions(tmp_path):
    batch = {
        "model_id": MODEL,
        "layer": 6,
        "sae_set": "res-jb",
        "sae_id_suffix": None,
        "features": [
            {"feature_index": n, "frac_nonzero": 0.01 * n, "activations": [{"tokens": ["a"], "values": [1.5]}]}
            for n in (0, 1)
        ],
    }
    (tmp_path / "batch-0.json").write_text(json.dumps(batch))
    batch["features"] = [{"feature_index": 2, "explanations": [{"description": "cats"}]}]
    (tmp_path / "batch-1.json").write_text(json.dumps(batch))
    found = neuronpedia.load(tmp_path)
    assert str(found.source) == ID and found.stats[1].frac_nonzero == 0.01 and len(found.activations) == 2
    assert neuronpedia.descriptions(tmp_path, [0, 2])["state"].tolist() == ["unknown", "described"]
    batch["sae_id_suffix"] = "l0-18"
    (tmp_path / "x.json").write_text(json.dumps(batch))
    assert str(neuronpedia.load(tmp_path / "x.json").source) == f"{ID}__l0-18"


def test_a_folder_in_the_bulk_layout(tmp_path):
    folder = tmp_path / "v1" / MODEL / SOURCE
    for kind, rows in {
        "explanations": [explanation(1, "cats"), explanation("2", "dogs")],
        "features": [
            {"index": "1", "frac_nonzero": 0.2, "maxActApprox": 8},
            {"index": 2, "frac_nonzero": 0, "maxActApprox": 0},
        ],
        "activations": [{"index": 1, "tokens": ["a", "b"], "values": [0, 8]}],
    }.items():
        (folder / kind).mkdir(parents=True)
        (folder / kind / "batch-0.jsonl.gz").write_bytes(packed(rows))
    (folder / "source.jsonl").write_text(json.dumps({"saelensConfig": {"d_sae": 5}}) + "\n")
    for place in (folder, tmp_path):  # the folder itself, or one above it
        found = neuronpedia.load(place, activations=4)
        assert (
            [r.index for r in found.rows] == [1, 2] and found.complete and found.config["saelensConfig"] == {"d_sae": 5}
        )
        assert found.stats[2].frac_nonzero == 0 and len(found.activations) == 1
    assert neuronpedia.descriptions(folder, [2, 9])["state"].tolist() == ["described", "none"]
    other = tmp_path / "v1" / MODEL / "7-res-jb" / "explanations"
    other.mkdir(parents=True)
    with pytest.raises(InputError, match="holds 2 sources"):
        neuronpedia.load(tmp_path)
    with pytest.raises(InputError, match="holds no Neuronpedia data"):
        neuronpedia.load(other)


def test_plain_tables(tmp_path):
    (tmp_path / "a.csv").write_text('feature,explanation\n7,"cats, dogs"\n')
    (tmp_path / "a.jsonl").write_text('{"index": 7, "description": "cats, dogs"}\n')
    (tmp_path / "a.json").write_text('{"7": "cats, dogs", "8": null}')
    for name in ("a.csv", "a.jsonl", "a.json"):
        table = neuronpedia.descriptions(tmp_path / name, [7])
        assert table[["index", "description", "state"]].values.tolist() == [[7, "cats, dogs", "described"]]
    assert neuronpedia.descriptions(tmp_path / "a.json", [8])["state"].tolist() == ["none"]
    pd.DataFrame({"index": [7], "description": ["cats"]}).to_parquet(tmp_path / "a.parquet")
    assert neuronpedia.descriptions(tmp_path / "a.parquet")["description"].tolist() == ["cats"]
    (tmp_path / "b.csv").write_text("index,notes\n7,cats\n")
    with pytest.raises(InputError, match="no column 'description'"):
        neuronpedia.descriptions(tmp_path / "b.csv")
    with pytest.raises(InputError, match="does not exist"):
        neuronpedia.descriptions(tmp_path / "none.csv")
    packed_table = gzip.compress(b"index,description\n" + b"".join(b"%d,of cats\n" % n for n in range(5000)))
    broken = {
        "b.csv": b"",
        "c.csv": b'index,description\n1,"cats',
        "d.csv": b"index,description\n1,a,b\n2,a,b,c\n",
        "e.csv": b"index,description\n1,\xff\xfe\n",
        "f.csv.gz": packed_table[: len(packed_table) // 2],
        "g.parquet": b"PAR1",
    }
    for name, raw in broken.items():
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(InputError, match=f"{name} cannot be read"):
            neuronpedia.descriptions(tmp_path / name)
    (tmp_path / "f.csv.gz").write_bytes(packed_table)
    assert len(neuronpedia.descriptions(tmp_path / "f.csv.gz")) == 5000
    for gone in (tmp_path / "gone", "./gone", "../no/such"):
        with pytest.raises(InputError, match="does not exist"):
            neuronpedia.descriptions(str(gone))
    own = pd.DataFrame(
        {"index": [7], "description": ["cats"], "model_id": ["google/gemma-2-2b"], "source_id": ["20 a"]}
    )
    assert neuronpedia.from_dataframe(own).attrs["source"] == ""  # no id of Neuronpedia's, so no links
    (tmp_path / "c.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="none of the shapes"):
        neuronpedia.descriptions(tmp_path / "c.json")


def test_arenas_tables_in_one_call_each(site, tmp_path):
    path = tmp_path / "export.json"
    path.write_text(json.dumps(LEGACY))
    arena = neuronpedia.load_and_process_autointerp_dfs(path, 5)
    assert arena["index"].tolist() == list(range(5)) and arena["description"].tolist() == ["cats", "", "", "dogs", ""]
    assert {"modelId", "layer", "explanationModelName", "typeName"} <= set(arena.columns)
    back = neuronpedia.from_dataframe(arena)  # what notebooks filled with "" has no description
    assert back["state"].tolist() == ["described", "none", "none", "described", "none"] and back.attrs["source"] == ID
    both = neuronpedia.from_dataframes({768: arena, 1536: arena.iloc[:2]})
    assert {width: len(table) for width, table in both.items()} == {768: 5, 1536: 2}
    site.add("batch-0.jsonl.gz", [explanation(2, "cats")])
    sae = tiny_sae(meta_neuronpedia_id=ID, d_sae=8)
    assert neuronpedia.load_and_process_autointerp_dfs(sae, web=site.web)["description"].tolist() == [
        "",
        "",
        "cats",
        *[""] * 5,
    ]


def test_features_that_neuronpedia_leaves_out_have_no_description(site):
    site.features[f"{ID}/204"] = FEATURE
    table = neuronpedia.descriptions(ID, [203, 204, 205])  # not in the bulk data, so one by one
    assert table["state"].tolist() == ["none", "described", "described", "none"]
    with pytest.raises(NotThereError, match="has no feature 1"):
        neuronpedia.load(ID, [1, 2])


def test_a_refusal_says_nothing_about_a_feature(site):
    site.features[f"{ID}/204"] = FEATURE
    site.script += [("/api/feature/" + ID + "/205", "refused")]
    with pytest.raises(NeuronpediaError, match="not public"):
        neuronpedia.load(ID, [204, 205])


def test_many_features_in_one_file(tmp_path):
    path = tmp_path / "many.jsonl"
    path.write_text("\n".join(json.dumps({"index": i, "activations": [], "explanations": [{"description": "cats"}]}) for i in range(3000)))  # fmt: skip
    assert len(neuronpedia.load(path).rows) == 3000


def test_an_id_is_found_from_metadata_release_and_repository():
    assert str(neuronpedia.resolve(tiny_sae(meta_neuronpedia_id="gpt2-small/6-res-jb"))) == ID
    assert str(neuronpedia.resolve("https://www.neuronpedia.org/gpt2-small/6-res-jb/204?embed=true")) == ID
    assert str(neuronpedia.resolve(release="gpt2-small-res-jb", sae_id="blocks.6.hook_resid_pre")) == ID
    # This release has no id for it; the same weights have one under another release.
    found = neuronpedia.resolve(release="gemma-scope-2b-pt-res", sae_id="layer_20/width_16k/average_l0_71")
    assert str(found) == "gemma-2-2b/20-gemmascope-res-16k"
    assert neuronpedia.resolve(repo_id="google/gemma-scope-2b-pt-res", path="layer_20/width_16k/average_l0_71") == found
    assert (
        neuronpedia.resolve(release="google/gemma-scope-2b-pt-res", sae_id="layer_20/width_16k/average_l0_71") == found
    )
    canonical = neuronpedia.resolve(repo_id="google/gemma-scope-9b-pt-res", path="layer_1/width_16k/average_l0_69")
    assert str(canonical) == "gemma-2-9b/1-gemmascope-res-16k"  # and not …__l0-69, which is the same


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"sae": tiny_sae()}, "holds no neuronpedia_id"),
        ({"sae": tiny_sae(meta_neuronpedia_id=None)}, "release= and sae_id="),
        ({"release": "gpt2-small-res-jp", "sae_id": "blocks.6.hook_resid_pre"}, "did you mean 'gpt2-small-res-jb'"),
        ({"release": "gpt2-small-res-jb", "sae_id": "blocks.66.hook_resid_pre"}, "did you mean 'blocks.6"),
        ({"repo_id": "a/b", "path": "c"}, "no Neuronpedia id"),
        ({"sae": "gpt2-small"}, "is not a Neuronpedia id"),
    ],
)
def test_what_cannot_be_resolved_says_what_to_give(arguments, message):
    with pytest.raises(InputError, match=message):
        neuronpedia.resolve(**arguments)


def test_what_an_sae_is_called(monkeypatch):
    sae = tiny_sae()
    assert names_of(sae) == {} and names_of("blocks.0.mlp.hook_post") == {}
    sae.cfg.metadata.release, sae.cfg.metadata.sae_id = "gpt2-small-res-jb", "no such SAE"
    assert names_of(sae) == {"release": "gpt2-small-res-jb", "sae_id": "no such SAE"}
    monkeypatch.setattr("sae_lens.SAE.from_pretrained", lambda *_, **__: tiny_sae())
    opened = open_sae("gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71", None, "cpu")
    names = names_of(opened)
    assert names["release"] == "gemma-scope-2b-pt-res" and names["l0"] == 71
    assert names["neuronpedia_id"] == "gemma-2-2b/20-gemmascope-res-16k"
    opened.cfg.metadata.neuronpedia_id = "../../x y"
    assert "neuronpedia_id" not in names_of(opened)


def test_ids_know_their_layer_and_neurons():
    assert neuronpedia.SourceId.parse("gemma-2-2b/5-gemmascope-res-16k__l0-18").layer == 5
    neurons = neuronpedia.SourceId.parse("gpt2-small/6")
    assert neurons.is_neurons and neurons.layer == 6 and not neuronpedia.SourceId.parse(ID).is_neurons


def test_quick_lists_are_cut_into_links(site):
    found = links.quick_list("gemma-2-2b-it/20-gemmascope-res-16k", range(100), "Fehlbeschriftet & vertauscht")
    assert len(found) == 3 and all(len(link) < 8000 for link in found)
    from urllib.parse import parse_qs, urlsplit

    queries = [parse_qs(urlsplit(link).query, strict_parsing=True) for link in found]
    items = [item for query in queries for item in json.loads(query["features"][0])]
    # The model is the id's, not the release's; the index a string.
    assert (
        items[7] == {"modelId": "gemma-2-2b-it", "layer": "20-gemmascope-res-16k", "index": "7"} and len(items) == 100
    )
    assert queries[1]["name"] == ["Fehlbeschriftet & vertauscht 2 of 3"]
    assert links.quick_list(ID, []) == []
    with pytest.raises(InputError, match="1 to 150"):
        links.quick_list(ID, [1], most=151)


def test_lists_that_stay_and_rows_to_import(tmp_path):
    bodies = links.list_bodies(ID, [(i, f"label {i}") for i in range(151)], "audit", "what a run found")
    assert [len(body["features"]) for body in bodies] == [150, 1]
    assert bodies[0]["features"][3] == {"modelId": MODEL, "layer": SOURCE, "index": 3, "description": "label 3"}
    described = [
        {"index": 3, "description": "cats", "clarity": 0.5},
        {"index": 4, "description": "dogs", "explanation_id": "cl9"},
    ]
    rows = list(links.import_rows(ID, described))
    assert [list(row) for row in rows] == [list(links.IMPORT_COLUMNS)] * 2  # columns come from the first line
    assert rows[0]["index"] == "3" and json.loads(rows[0]["notes"]) == {"clarity": 0.5} and rows[1]["id"] == "cl9"
    path = tmp_path / "batch-0.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert neuronpedia.descriptions(path)["description"].tolist() == ["cats", "dogs"]  # what goes out comes in again


@pytest.mark.parametrize(
    ("own", "told"), [(ID, False), (ID.upper(), False), ("gpt2-small/7-res-jb", True), (None, False)]
)
def test_labels_of_another_source_are_told_where_they_are_scored(tmp_path, caplog, own, told):
    model_id, _, layer = ID.partition("/")
    rows = [{"modelId": model_id, "layer": layer, "index": str(i), "description": TRUE[i]} for i in TRUE]
    (tmp_path / "labels.json").write_text(json.dumps(rows))
    sae = planted_sae()
    sae.cfg.metadata.neuronpedia_id = own
    with FakeJudge(rule=rule, writer=writer) as server:
        fade = Fade(planted_model(), sae, corpus=natural_texts(60), judge=judge_of(server), detection_texts=8)
        fade.evaluate(neuronpedia.descriptions(tmp_path / "labels.json"), scorers=["detection"], progress=False)
    assert (f"those of {ID} on Neuronpedia, and the SAE is gpt2-small/7-res-jb" in caplog.text) is told
