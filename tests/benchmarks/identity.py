"""How long it takes to tell a model: seconds for each GB of its weights.

python -m tests.benchmarks.identity [--gb 4] [--dtype bfloat16] [--device cpu]
"""

import argparse
import time

import torch

from fade_lens.subject.identity import weights_hash


def model(gb: float, dtype: torch.dtype, device: str) -> torch.nn.Module:
    """Layers of one size, as a language model has them, and an embedding as large as eight of them; every byte drawn."""
    bytes_each = 2**27
    parts = [
        torch.randint(0, 256, (bytes_each,), dtype=torch.uint8) for _ in range(max(1, round(gb * 1e9 / bytes_each) - 8))
    ]
    parts.append(torch.randint(0, 256, (8 * bytes_each,), dtype=torch.uint8))
    weights = [torch.nn.Parameter(part.view(dtype).view(-1, 1024).to(device), requires_grad=False) for part in parts]
    return torch.nn.ParameterList(weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=4.0)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    made = model(options.gb, getattr(torch, options.dtype), options.device)
    size = sum(p.numel() * p.element_size() for p in made.parameters()) / 1e9
    started = time.perf_counter()
    weights_hash(made)
    each = (time.perf_counter() - started) / size
    print(
        f"{size:.1f} GB of {options.dtype} on {options.device}: {each:.2f} s/GB; a 9B model in bfloat16 (18 GB): {18 * each:.0f} s"
    )


if __name__ == "__main__":
    main()
