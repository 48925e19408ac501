"""Numbers of the original LightningDiT, against which ours is held: ``python make_lightning_vectors.py CHECKOUT OUT``.

CHECKOUT is a clone of https://github.com/hustvl/LightningDiT (it needs ``einops``), of which nothing enters this tree
but what it computes: weights, inputs, the tokens after every block, and the output, of models that are small and have
random weights. Every layer is randomised, since a fresh model answers zero. OUT is a .safetensors file whose metadata
names the commit.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import torch
from safetensors.torch import save_file

SIZES = {"input_size": 4, "patch_size": 2, "in_channels": 3, "hidden_size": 16, "depth": 3, "num_heads": 2}
PUBLISHED = {"use_swiglu": True, "use_rope": True, "use_rmsnorm": True, "num_classes": 5}
CASES = {
    "published": {**SIZES, **PUBLISHED},
    "qk_norm": {**SIZES, **PUBLISHED, "use_qknorm": True, "patch_size": 1, "depth": 2},
    "unconditional": {**SIZES, **PUBLISHED, "class_dropout_prob": 0.0, "hidden_size": 24, "depth": 1},
}
BATCH = 3


def main(checkout: Path, out: Path) -> None:
    torch.compile = lambda function, **_: function  # the original's decorators; compiling changes no number
    for name in ("", ".nn", ".nn.model_parallel", ".nn.model_parallel.initialize", ".nn.model_parallel.layers"):
        sys.modules.setdefault(f"fairscale{name}", MagicMock())  # imported there for classes that are not used
    sys.path.insert(0, str(checkout))
    from models.lightningdit import LightningDiT

    tensors: dict[str, torch.Tensor] = {}
    for seed, (name, settings) in enumerate(CASES.items()):
        source = torch.Generator().manual_seed(seed)
        model = LightningDiT(**settings).eval()
        for key, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.data = 0.2 * torch.randn(parameter.shape, generator=source) + (
                    "norm" in key and "weight" in key
                )
        after: list[torch.Tensor] = []
        for block in model.blocks:
            block.register_forward_hook(lambda _, __, tokens, after=after: after.append(tokens))
        side = settings["input_size"]
        x = torch.randn(BATCH, settings["in_channels"], side, side, generator=source)
        t = torch.rand(BATCH, generator=source)
        y = torch.randint(0, settings["num_classes"], (BATCH,), generator=source)
        with torch.no_grad():
            output = model(x, t, y)
        found = {"x": x, "t": t, "y": y, "output": output}
        found |= {f"tokens.{number}": tokens for number, tokens in enumerate(after, 1)}
        found |= {f"weights.{key}": value for key, value in model.state_dict().items()}
        tensors |= {f"{name}.{key}": value.detach().clone().contiguous() for key, value in found.items()}
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    origin = {"repository": "https://github.com/hustvl/LightningDiT", "commit": commit, "cases": json.dumps(CASES)}
    save_file(tensors, out, metadata=origin)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
