"""The API reference that `pdoc` makes of the docstrings (the command stands in CONTRIBUTING.md)."""

import html
import re

import fade_lens


def test_the_reference_shows_every_public_name_with_its_words_and_shapes() -> None:
    import pdoc

    pdoc.render.configure(docformat="google", show_source=False)
    module = pdoc.doc.Module(fade_lens)
    page = pdoc.render.html_module(module, all_modules={"fade_lens": module})
    text = " ".join(html.unescape(re.sub("<[^>]+>", "", page)).split())
    for name in fade_lens.__all__:
        if name != "neuronpedia":  # a package, with a page of its own
            assert f'id="{name}"' in page, name
            first = getattr(fade_lens, name).__doc__.strip().splitlines()[0]
            assert re.sub(r"[`\W]+", "", first) in re.sub(r"[`\W]+", "", text), name
    assert "Float[ndarray" in text
