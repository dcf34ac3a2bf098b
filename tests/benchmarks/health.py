"""The health of the demo's SAE in Gemma 3 270M, what it costs, and whether mistakes in using it are told and named.

python -m tests.benchmarks.health            # its figures, and the time
python -m tests.benchmarks.health --wrong    # also with a mistake at a time (some minutes)
"""

import argparse
import time
from collections.abc import Iterator
from typing import Any

import fade_lens
from fade_lens import demo

FIGURES = (
    "l0", "variance_explained", "variance_explained_legacy", "cosine", "l2_ratio", "bias", "ce_clean", "ce_sae", "ce_sae_error", "ce_zero", "ce_mean",
    "kl_sae", "kl_sae_error", "kl_zero", "kl_mean", "ce_recovered_zero", "ce_recovered_mean", "kl_recovered_zero", "kl_recovered_mean", "recovered_saelens",
)  # fmt: skip
ANSWER = {"When John and Mary went to the shops, John gave the bag to": " Mary"}


def mistakes() -> Iterator[tuple[str, Any]]:
    """The SAE as it is used wrongly."""
    sae = demo.sae()
    sae.cfg.metadata.prepend_bos = False
    yield "without BOS", sae
    for layer in (7, 8, 10, 12):
        sae = demo.sae()
        sae.cfg.metadata.hook_name = f"blocks.{layer}.hook_resid_post"
        yield f"at layer {layer}", sae
    for factor in (0.05, 0.3, 3.0, 20.0):
        sae = demo.sae()
        sae.fold_activation_norm_scaling_factor(factor)
        yield f"activations × {factor:g}", sae


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wrong", nargs="?", const="", help="also mistakes, those alone whose name holds this")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--loss-texts", type=int, default=64)
    parser.add_argument("--loss-tokens", type=int, default=16, help="of each of these; 0: all")
    given = parser.parse_args()
    model, corpus = demo.model(), demo.corpus()
    options: dict[str, Any] = {
        "texts": given.texts,
        "loss_texts": given.loss_texts,
        "loss_tokens": given.loss_tokens or None,
        "progress": False,
    }
    begun = time.process_time()
    found = fade_lens.health(model, demo.sae(), corpus, prompts=ANSWER, **options)
    row = found.frame.to_dict("records")[0]
    print(f"{time.process_time() - begun:.1f} s of processor time: {row['tokens']:,} tokens of {row['texts']} texts, losses on {row['loss_tokens']:,} tokens")  # fmt: skip
    for name in FIGURES:
        print(f"{name:28} {row[name]:10.4f}   {row[f'{name}_low']:.4f} to {row[f'{name}_high']:.4f}")
    for name in row:
        if name in found.items[0].latents or name in found.items[0].weights or name in ("silent_bound", "special_variance"):  # fmt: skip
            print(f"{name:28} {row[name]:10.4f}")
    print(found.prompts.to_string())
    print("warnings:", row["warnings"] or "none")
    for name, sae in mistakes() if given.wrong is not None else ():
        if given.wrong not in name:
            continue
        begun = time.process_time()
        row = fade_lens.health(model, sae, corpus, **options).frame.to_dict("records")[0]
        print(f"{name}: {row['causes'] or 'no warning'} (L0 {row['l0']:.1f}, variance {row['variance_explained']:.2f}, recovered {row['ce_recovered_zero']:.2f}), {time.process_time() - begun:.0f} s\n    {row['warnings']}")  # fmt: skip


if __name__ == "__main__":
    main()
