"""The bulk data, with every trap that the real bucket holds."""

import gzip
import inspect
import json

import pytest

from fade_lens import neuronpedia, read_descriptions
from fade_lens._util.errors import InputError
from fade_lens._util.files import json_lines
from fade_lens.neuronpedia import NeuronpediaError
from fade_lens.neuronpedia.bulk import files, listing
from fade_lens.neuronpedia.transport import Web
from tests.neuronpedia.fake_site import MODEL, SOURCE, FakeSite, etag, explanation

ID = f"{MODEL}/{SOURCE}"


def load(site, indices=None, **options):
    return neuronpedia.descriptions(ID, indices, web=site.web, **options)


def test_the_listing_is_read_page_after_page_and_siblings_do_not_match(site):
    site.page = 2
    for n in range(5):
        site.add(f"batch-{n}.jsonl.gz", [explanation(10 * n, f"text {n}")])
    site.add("batch-0.jsonl.gz", [explanation(7, "of a sibling")], kind="explanations-old")
    table = load(site)
    assert table["index"].tolist() == [0, 10, 20, 30, 40] and "of a sibling" not in table["description"].tolist()
    assert site.fetched("continuation-token") == 2 and table.attrs["complete"]
    assert not any("prefix=v1%2Fgpt2-small%2F6-res-jb%2Fexplanations&" in r for r in site.requests)


def test_batch_numbers_say_nothing_and_order_is_lexicographic(site):
    for n, indices in {0: [5], 1: [900], 10: [3], 2: [17]}.items():
        site.add(f"batch-{n}.jsonl.gz", [explanation(i, f"about {i}") for i in indices])
    table = load(site)
    assert dict(zip(table["index"], table["description"], strict=True)) == {i: f"about {i}" for i in (3, 5, 17, 900)}
    assert site.fetched("batch-3.jsonl") == 0  # nothing is probed


def test_an_index_is_a_string_or_an_int_and_an_embedding_anything(site):
    rows = [
        explanation("204", "time-related phrases"),
        explanation(205, "cats", embedding=[0.1] * 256) | {"index": 205},
        explanation(206, "dogs") | {"index": 206.0},
    ]
    del rows[2]["embedding"]
    rows[1] |= {"triggeredById": "u", "notes": None, "createdAt": "2026-02-01T00:00:00.000Z"}
    site.add("batch-0.jsonl.gz", rows)
    table = load(site)
    assert table["index"].tolist() == [204, 205, 206] and str(table["index"].dtype) == "int64"
    assert table["created_at"].tolist()[1].startswith("2026-02") and "embedding" not in table.columns
    first = table.iloc[0]
    assert (first.model_id, first.source_id, first.type_name) == (MODEL, SOURCE, "oai_token-act-pair")
    assert first.origin == f"Neuronpedia {ID}, gpt-4o-mini (oai_token-act-pair)"


def test_three_states_are_kept_apart(site):
    site.add("batch-0.jsonl.gz", [explanation(1, "cats"), explanation(2, None)])
    table = load(site, [2, 1, 3])
    assert table[["index", "state"]].values.tolist() == [[2, "none"], [1, "described"], [3, "none"]]
    plain = neuronpedia.from_dataframe(table[["index", "description"]].iloc[1:2])
    assert plain["state"].tolist() == ["described"] and not plain.attrs["complete"]


def test_never_looked_up_is_not_the_same_as_none(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("index,description\n4,cats\n")
    table = neuronpedia.descriptions(path, [4, 5])
    assert table["state"].tolist() == ["described", "unknown"]
    with pytest.raises(InputError, match=r"4\.5 is not a whole number"):
        inspect.unwrap(neuronpedia.descriptions)(path, [4.5])  # without the type checks of the test run


def test_repeated_descriptions_are_kept_and_counted_and_scored_once(site):
    rows = [
        explanation(1, "cats"),
        explanation(1, "cats ", n=1),
        explanation(1, "small cats", n=2),
        explanation(2, "cats"),
    ]
    site.add("batch-0.jsonl.gz", rows)
    table = load(site, [1, 2, 3])
    assert len(table) == 5 and table["copies"].tolist() == [2, 2, 1, 1, 0] and table.attrs["repeated"] == 1
    found = read_descriptions(table)
    assert [(d.index, d.text) for d in found] == [(1, "cats"), (1, "small cats"), (2, "cats")]
    assert found[0].origin.startswith("Neuronpedia gpt2-small/6-res-jb")


def test_a_second_call_fetches_nothing_again_but_a_changed_file(site):
    first = site.add("batch-0.jsonl.gz", [explanation(1, "cats")])
    site.add("batch-1.jsonl.gz", [explanation(2, "dogs")])
    load(site)
    load(site)
    assert site.fetched("batch-0") == 1 == site.fetched("batch-1")
    site.files[first] = bytes(len(site.files[first]))  # of the same size: the listing's ETag tells
    site.add("batch-0.jsonl.gz", [explanation(1, "rats")])
    assert len(site.files[first]) > 0
    assert load(site)["description"].tolist() == ["rats", "dogs"]
    assert site.fetched("batch-0") == 2 and site.fetched("batch-1") == 1


def test_without_a_connection_what_was_fetched_is_used(site, caplog):
    site.add("batch-0.jsonl.gz", [explanation(1, "cats")])
    load(site)
    site.script = [("list-type", "error")] * 100
    assert load(site)["description"].tolist() == ["cats"]
    assert "fetched before is used" in caplog.text


@pytest.mark.parametrize("resumes", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(site, resumes):
    rows = [explanation(i, f"{i * 7919} " * 50) for i in range(300)]
    key = site.add("batch-0.jsonl.gz", rows)
    site.script = [("batch-0", "cut"), ("batch-0", "cut" if resumes else "no_ranges")]
    assert len(load(site)) == 300
    ranged = [h for h in site.headers if "range" in h]
    assert ranged[0]["range"] == f"bytes={len(site.files[key]) // 2}-" and ranged[0]["accept-encoding"] == "identity"
    assert len(ranged) == (2 if resumes else 1)
    conditions = {h["if-range"] for h in site.headers if "if-range" in h}
    assert conditions == {etag(site.files[key])}


def test_a_run_that_was_killed_goes_on_with_the_part_it_had(site, tmp_path):
    raw = b"x" * 1000
    site.files["v1/file"] = raw
    target = tmp_path / "file"
    (tmp_path / "file.-1000.partial").write_bytes(raw[:600])
    (tmp_path / "file.old-900.partial").write_bytes(b"y" * 10)  # of another version: deleted
    site.web.download(f"{site.url}/v1/file", target, 1000)
    assert target.read_bytes() == raw and [h.get("range") for h in site.headers] == ["bytes=600-"]
    assert list(tmp_path.glob("*.partial")) == []


def test_a_file_of_another_size_than_listed_is_refused(site, tmp_path):
    site.files["v1/file"] = b"x" * 50
    with pytest.raises(NeuronpediaError, match="gave 50 bytes where 60 are listed"):
        site.web.download(f"{site.url}/v1/file", tmp_path / "file", 60)
    with pytest.raises(NeuronpediaError, match="where 40 are listed"):
        site.web.download(f"{site.url}/v1/file", tmp_path / "file", 40)
    with pytest.raises(NeuronpediaError, match="at most 10 are fetched"):
        site.web.download(f"{site.url}/v1/file", tmp_path / "file", 50, limit=10)
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("kind", ["error", "limit", "cut"])
def test_a_failure_that_passes_is_tried_again(site, kind):
    site.add("batch-0.jsonl.gz", [explanation(1, "cats")])
    site.script = [("list-type", kind) if kind != "cut" else ("batch-0", "cut"), ("batch-0", kind)]
    assert load(site)["description"].tolist() == ["cats"]
    assert site.met[kind] == 2


def test_a_limit_says_which_and_is_not_waited_for_too_long(site):
    site.script = [("list-type", "limit")] * 100
    with pytest.raises(NeuronpediaError, match=r"25000 requests at most, 60 minutes a window, 0 left.*tried 5 times"):
        load(site)
    site.retry_after = "3600"
    with pytest.raises(NeuronpediaError, match="asks to wait 3600 seconds"):
        load(site)


def test_a_server_that_is_not_there_is_told_in_a_sentence():
    web = Web(attempts=2, backoff=0.01, timeout=1)
    with pytest.raises(NeuronpediaError, match=r"127\.0\.0\.1:9.*Check the connection, or give a file"):
        web.get("http://127.0.0.1:9/x")


@pytest.mark.parametrize(
    "kind, message",
    [
        ("moved", "has moved to http://elsewhere.invalid"),
        ("doctype", "document type"),
        ("html", "<html> instead of a listing"),
    ],
)
def test_a_wrong_or_moved_bucket_says_what_to_do(site, kind, message):
    site.script = [("list-type", kind)]
    with pytest.raises(NeuronpediaError, match=message):
        load(site)


def test_redirects_within_the_host_are_followed_a_few_times(site):
    site.add("batch-0.jsonl.gz", [explanation(1, "cats")])
    site.script = [("batch-0", "turned")] * 2
    assert len(load(site)) == 1
    site.files["v1/other"] = b"x"
    site.script = [("other", "turned")] * 9
    with pytest.raises(NeuronpediaError, match="redirects more than"):
        site.web.get(f"{site.url}/v1/other")


def test_an_unknown_source_names_its_neighbours(site):
    site.add("batch-0.jsonl.gz", [explanation(1, "cats")], source="6-res-jb")
    with pytest.raises(InputError, match="did you mean 'gpt2-small/6-res-jb'"):
        neuronpedia.descriptions("gpt2-small/6-res-jp", web=site.web)
    with pytest.raises(InputError, match="nothing of model 'gpt3'"):
        neuronpedia.descriptions("gpt3/6-res-jp", web=site.web)


def test_no_key_is_sent(site, monkeypatch):
    monkeypatch.setenv("NEURONPEDIA_API_KEY", "sk-np-secret")
    site.add("batch-0.jsonl.gz", [explanation(1, "cats")])
    load(site)
    assert not any("secret" in value for headers in site.headers for value in headers.values())


def test_limits_on_what_is_read(site, tmp_path):
    path = tmp_path / "batch-0.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"index": 1, "description": "' + b"a" * 5000 + b'"}\n', mtime=0))
    with pytest.raises(InputError, match="line 1 is longer"):
        list(json_lines(path, line_bytes=1000))
    path.write_bytes(gzip.compress(b'{"index": 1}\n' * 1000, mtime=0))
    with pytest.raises(InputError, match="is longer than any"):
        list(json_lines(path, file_bytes=2000))
    site.files["v1/big"] = b"x" * 5000
    with pytest.raises(NeuronpediaError, match="is over"):
        site.web.get(f"{site.url}/v1/big", limit=1000)


def test_broken_files_are_named_by_line(tmp_path):
    path = tmp_path / "batch-0.jsonl"
    for text, message in (
        ('{"index": 1, "description": "a"}\n{"index"', "batch-0.jsonl, line 2 is not valid JSON"),
        ('{"index": "x", "description": "a"}', "line 1: feature index 'x'"),
        ('{"index": -4, "description": "a"}', "line 1: feature index -4"),
        ('{"description": "a"}', "line 1 has no feature index"),
        ("[1]", "every line must be an object"),
        ("[" * 100_000, "not valid JSON"),
        ('{"index": 1, "description": {"a": 1}}', "the description is dict"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            neuronpedia.descriptions(path)
    packed = gzip.compress(json.dumps(explanation(1, "cats " * 1000)).encode(), mtime=0)
    for raw in (packed[: len(packed) // 2], packed[:-8] + b"????" + packed[-4:]):
        path.write_bytes(raw)
        with pytest.raises(InputError, match=r"damaged|not valid JSON"):
            neuronpedia.descriptions(path)


def test_statistics_are_read_where_they_are_asked_for(site):
    site.add("batch-0.jsonl.gz", [explanation(1, "cats")])
    known = {"index": 1, "frac_nonzero": 0.25, "maxActApprox": 30.5}
    site.add("batch-0.jsonl.gz", [known, {**known, "index": "2"}], kind="features")
    assert neuronpedia.load(ID, [1]).stats == {} and site.fetched("/features/batch-0") == 0
    stats = neuronpedia.load(ID, [1], stats=True).stats
    assert list(stats) == [1] and (stats[1].frac_nonzero, stats[1].max_activation) == (0.25, 30.5)


def test_an_unpacked_file_under_a_packed_name_is_read(tmp_path):
    path = tmp_path / "batch-0.jsonl.gz"  # servers may unpack on the way
    path.write_text(json.dumps(explanation(3, "cats")))
    assert neuronpedia.descriptions(path)["index"].tolist() == [3]


def test_a_key_cannot_lead_out_of_the_folder(site):
    site.add("..", [explanation(1, "evil")])
    site.files[f"v1/{ID}/explanations/..\\..\\evil.jsonl.gz"] = b"evil"
    site.add("batch-0.jsonl.gz", [explanation(1, "cats")])
    assert [p.name for p in files(site.web, site.hosts, neuronpedia.SourceId(MODEL, SOURCE), "explanations")] == [
        "batch-0.jsonl.gz"
    ]
    with pytest.raises(InputError, match="is not a name"):
        neuronpedia.SourceId("..", "6-res-jb")
    with pytest.raises(InputError, match="is not a Neuronpedia id"):
        neuronpedia.SourceId.parse("gpt2-small/../../etc")


def test_a_listing_that_never_ends_is_left(site, monkeypatch):
    site.page = 1
    for n in range(3):
        site.add(f"batch-{n}.jsonl.gz", [explanation(1, "cats")])
    monkeypatch.setattr("fade_lens.neuronpedia.bulk.MAX_PAGES", 2)
    with pytest.raises(NeuronpediaError, match="over 2 pages"):
        listing(site.web, site.url, f"v1/{ID}/explanations/")


def test_hosts_are_settings(monkeypatch):
    monkeypatch.setenv("FADE_LENS_NEURONPEDIA_SITE", "https://np.example.org/")
    hosts = neuronpedia.Hosts()
    assert hosts.site == "https://np.example.org" and hosts.bucket.startswith("https://neuronpedia-datasets.s3")
    assert neuronpedia.links.dashboard("a/1-b", 3) == "https://np.example.org/a/1-b/3"
    with pytest.raises(InputError, match="http or https"):
        neuronpedia.Hosts(site="file:///etc")


def test_the_source_file_and_stored_contexts_come_along(site):
    site.add("batch-0.jsonl.gz", [explanation(1, "cats")])
    site.files[f"v1/{ID}/source.jsonl"] = json.dumps({"saelensConfig": '{"d_sae": 24576}', "hfRepoId": "a/b"}).encode()
    site.files[f"v1/{ID}/source.jsonl.bak"] = b"not this"
    rows = [
        {
            "id": "a",
            "index": i,
            "modelId": MODEL,
            "layer": SOURCE,
            "tokens": ["a", "b"],
            "values": values,
            "maxValue": 2,
        }
        for i, values in ((1, [0.0, 2.0]), (1, [0, 0]), (2, [1.0]), (3, [1, 0.5]), (1, [3, 0]), (1, [4, 0]))
    ]
    site.add("batch-0.jsonl.gz", rows, kind="activations")
    site.add("batch-1.jsonl.gz", rows, kind="activations")
    found = neuronpedia.load(ID, [1], activations=8, web=site.web)
    assert found.config["hfRepoId"] == "a/b"
    assert [(a.index, a.values) for a in found.activations] == [(1, (0.0, 2.0)), (1, (3.0, 0.0)), (3, (1.0, 0.5))]
    assert site.fetched("activations/batch-1") == 0  # one is enough


def test_many_files_are_fetched_and_read(site: FakeSite):
    for n in range(40):
        site.add(f"batch-{n}.jsonl.gz", [explanation(100 * n + i, f"about {i}") for i in range(25)])
    assert len(load(site)) == 1000
