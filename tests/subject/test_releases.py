"""Everything that SAELens lists: loaded as a user does from stand-ins in a hub cache, read, encoded and steered."""

import pytest
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from fade_lens import load
from fade_lens._util.errors import InputError
from tests.releases import FILES, UNLISTED, Published, check, hub_cache, kinds, walk

KINDS = [*kinds(walk()), UNLISTED]
HALF = [sae for sae in KINDS if sae.release in ("gpt2-small-res-jb", "qwen-scope-3-1.7b-base-w32k-l50")]


def name(sae: Published) -> str:
    return f"{sae.loader} {sae.architecture} {sae.hook} {sae.release}"


@pytest.fixture(scope="module", autouse=True)
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    with hub_cache(folder, KINDS):
        yield folder


def test_every_release_and_loader_of_the_directory_is_walked():
    """SAELens' next release, loader, model or hook is to be looked at here first."""
    directory = get_pretrained_saes_directory()
    assert {sae.release for sae in walk()} == set(directory)
    assert {(sae.loader, sae.architecture, sae.hook) for sae in KINDS} >= {
        (sae.loader, sae.architecture, sae.hook) for sae in walk()
    }
    assert {sae.loader for sae in KINDS} == set(FILES)


@pytest.mark.parametrize("sae", KINDS, ids=name)
def test_a_published_sae_is_read_encoded_and_steered_as_saelens_means_it(sae):
    assert check(sae).endswith("float32")


@pytest.mark.parametrize("sae", HALF, ids=name)
def test_a_model_in_half_precision_is_read_encoded_and_steered_alike(sae):
    assert check(sae, "bfloat16").endswith("bfloat16")


def test_a_model_whose_files_are_not_there_is_not_suggested_in_its_own_place():
    with pytest.raises(InputError, match="'Qwen/Qwen3-8B-Base' could not be loaded") as told:
        load("qwen-scope-3-8b-base-w64k-l50", "layer0", device="cpu")
    assert str(told.value).count("'Qwen/Qwen3-8B-Base'") == 1 and str(told.value).count("'Qwen/Qwen3-1.7B-Base'") == 1
