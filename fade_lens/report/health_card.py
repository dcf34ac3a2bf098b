"""The health of an SAE as people see it: the same card on a page, in a notebook and in a run's report."""

from typing import Any

from markupsafe import Markup

from fade_lens._util.words import amount, clip, number
from fade_lens.metrics.metric import Metric
from fade_lens.subject.health import SaeHealth, rounded

WIDTH, HEIGHT, MARGIN = 320, 90, 12
TITLES = {
    "l0": "L0 (latents a token that are not zero)",
    "variance_explained": "Variance explained",
    "variance_explained_legacy": "Variance explained, mean of ratios (SAEBench's and Neuronpedia's figure)",
    "cosine": "Cosine of activations and reconstruction",
    "l2_ratio": "Length of the reconstruction, as a share",
    "bias": "Reconstruction bias (1: none)",
    "ce_clean": "Loss of the model, nats a token",
    "ce_sae": "… with the SAE",
    "ce_sae_error": "… with the SAE and what it missed, which must change nothing",
    "ce_zero": "… with zero in its place",
    "ce_mean": "… with the mean in its place",
    "ce_recovered_zero": "Loss recovered, of what zero ablation costs",
    "ce_recovered_mean": "Loss recovered, of what mean ablation costs",
    "recovered_saelens": "The same as SAELens counts it (zero at BOS too)",
    "kl_sae": "Divergence (KL) with the SAE, nats a token",
    "kl_recovered_zero": "Divergence recovered, of zero ablation",
    "kl_recovered_mean": "Divergence recovered, of mean ablation",
}
"""What a card shows, in order."""


def health_card(one: SaeHealth) -> dict[str, Any]:
    """What a card shows, as strings and a drawing."""
    rows = [(title, *in_words(one.metrics[name])) for name, title in TITLES.items() if name in one.metrics]
    if one.l0_release is not None:
        rows.insert(1, ("L0 that the release states", amount(one.l0_release), ""))
    if latents := one.latents:
        bound = f"density below {one.silent_bound:.2g} each (95 %)"
        rows.append((f"Latents silent on all {amount(one.tokens)} tokens", f"{100 * latents['dead']:.1f} %", bound))
        for name, least in (("dense_1", "1"), ("dense_10", "10")):
            rows.append((f"Latents not zero on more than {least} % of tokens", f"{100 * latents[name]:.2f} %", f"{100 * latents[f'{name}_firing']:.0f} % of all firing"))  # fmt: skip
    weights = {"encoder_decoder_cosine": "Cosine of encoder and decoder, mean", "decoder_cosine": "Cosine of a decoder row to the nearest other, mean"}  # fmt: skip
    rows += [(title, number(one.weights[name]), "") for name, title in weights.items() if name in one.weights]
    if one.special_share is not None:
        rows.append(("Share of the variance in special tokens, which nothing here counts", number(one.special_share), ""))  # fmt: skip
    where = one.hook if one.hook == one.hook_out else f"{one.hook} to {one.hook_out}"
    bos = "BOS in front" if one.prepend_bos else "no BOS in front"
    hint = f"{where}; {amount(one.width)} latents; {amount(one.tokens)} tokens of {amount(one.texts)} texts, {bos}, losses on {amount(one.loss_tokens)} tokens"  # fmt: skip
    reasons = sorted({str(metric.reason) for metric in one.metrics.values() if metric.reason})
    return {
        "name": clip(one.name, 120),
        "hint": clip(hint, 400),
        "healthy": not one.warnings,
        "warnings": [clip(warning.words, 1200) for warning in one.warnings],
        "rows": rows,
        "reasons": [clip(reason, 400) for reason in reasons],
        "drawing": drawing(one),
    }


def in_words(metric: Metric) -> tuple[str, str]:
    """A figure, and its interval or why there is none."""
    if metric.value is None:
        return "undefined", clip(str(metric.reason), 200)
    note = f"{amount(rounded(metric.interval[0]))} to {amount(rounded(metric.interval[1]))}" if metric.interval else metric.interval_reason  # fmt: skip
    return amount(rounded(metric.value)), note or ""


def drawing(one: SaeHealth) -> Markup:
    """An SVG of numbers only: how many tokens have how many latents."""
    edges, counts = one.l0_tokens
    if not counts:
        return Markup()
    low, high, most = edges[0], edges[-1], max(counts)

    def x(value: float) -> str:
        return f"{MARGIN + (value - low) / (high - low) * (WIDTH - 2 * MARGIN):.1f}"

    bars = "".join(
        f'<rect x="{x(start)}" y="{8 + (1 - n / most) * (HEIGHT - 30):.1f}" width="{float(x(end)) - float(x(start)) - 0.5:.1f}" height="{n / most * (HEIGHT - 30):.1f}"/>'
        for start, end, n in zip(edges, edges[1:], counts, strict=False)
        if n
    )
    ends = "".join(
        f'<text x="{x(value)}" y="{HEIGHT - 6}" text-anchor="{side}">{amount(shown)}</text>'
        for value, shown, side in ((low, low, "start"), (high, high - 1, "end"))
    )
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" aria-hidden="true"><g fill="#0072b2">{bars}</g><g fill="currentColor" font-size="10">{ends}</g></svg>')  # fmt: skip
