"""The Inception of FID, sFID and the Inception Score: torch-fidelity's, which repeats TensorFlow's graph of 2015.

The resize to 299 px is TensorFlow 1's, the weights are those of `inception-2015-12-05` converted. Three outputs:

- pool: 2,048 numbers after the average pool (FID, KID, precision and recall);
- spatial: the first seven channels of the 1 x 1 branch of `mixed_6` after its ReLU, 17 x 17 x 7 = 2,023 numbers in
  the order (row, column, channel) of ADM's evaluator (arXiv 2105.05233). In PyTorch's names that block is `Mixed_6d`;
- logits: 1,008 numbers, without the bias, as the Inception Score takes them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from repae.config import UserError
from repae.evaluation.features import POOL, FeatureExtractor
from repae.models.weight_files import read_weights
from repae.runtime.digest import sha256_of

SPATIAL, LOGITS = "spatial", "logits"
SPATIAL_CHANNELS = 7
WEIGHTS_FILE = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS_SHA256 = "6726825d"
"""First digits of the SHA-256 of the published file, as its name says."""


class Inception(FeatureExtractor):
    """TF-equal Inception V3 in float32.

    Args:
        weights: the file; None looks into torch's cache of downloads, then asks for it over the net.
        device: where it computes.

    Raises:
        UserError: no weights, with the file that is wanted; or a file that does not hold them.
    """

    name = "inception"
    channels = 3

    def __init__(self, weights: str | Path | None = None, device: torch.device | str = "cpu") -> None:
        path = cached_weights() if weights is None else Path(weights).expanduser()
        self.published = path is None or _check(path)
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        parts = ["2048", "logits_unbiased"]
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                network = FeatureExtractorInceptionV3(
                    self.name, parts, feature_extractor_weights_path=None if path is None else str(path)
                )
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise UserError(f"{path} does not hold torch-fidelity's Inception: {reason}. {_WANTED}") from None
        except (OSError, EOFError) as error:
            raise UserError(f"the Inception weights cannot be downloaded ({error}). {_WANTED}") from None
        self.network = network.to(device)
        self.device = torch.device(device)
        self.parts = {POOL: 2048, SPATIAL: 17 * 17 * SPATIAL_CHANNELS, LOGITS: 1008}
        self._branch: Tensor | None = None
        self.network.Mixed_6d.branch1x1.register_forward_hook(self._keep)

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b _"]]:
        pool, logits = self.network(images.to(self.device))
        assert self._branch is not None
        # ADM's order; a distance of whole covariances does not mind, its published statistics do.
        spatial = self._branch[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        # Not kept between calls: a batch of these maps is large.
        self._branch = None
        return {POOL: pool.float().cpu(), SPATIAL: spatial.float().cpu(), LOGITS: logits.float().cpu()}

    def about(self) -> dict[str, Any]:
        return {"network": "torch-fidelity, inception-v3-compat", "spatial_channels": SPATIAL_CHANNELS}

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "published_weights": self.published}

    def _keep(self, module: Any, inputs: Sequence[Tensor], output: Tensor) -> None:
        self._branch = output


def cached_weights() -> Path | None:
    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE
    return path if path.is_file() else None


def _check(path: Path) -> bool:
    """Whether the file is the published one; one of no tensors is refused before torch-fidelity unpickles it."""
    try:
        state = read_weights(path, "Inception")
    except UserError as error:
        raise UserError(f"{error}. {_WANTED}") from None
    if "fc.weight" not in state:
        raise UserError(f"{path} does not hold torch-fidelity's Inception. {_WANTED}")
    return sha256_of(path).startswith(WEIGHTS_SHA256)


_WANTED = (
    f"Wanted: {WEIGHTS_FILE} of torch-fidelity's release v0.2.0 (its SHA-256 begins with {WEIGHTS_SHA256}); fetch it "
    "elsewhere and give its path as --features.weights, or put it into checkpoints/ of torch's hub folder"
)
