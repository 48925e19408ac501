"""Weights of a teacher from a local file: in timm's keys, or in the layout in which its authors published them."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from repae.config import UserError
from repae.models.weight_files import fit, read_weights

_WRAPPINGS = ("state_dict", "model", "weights", "teacher", "encoder")
"""Under which key training scripts keep the weights: MoCo v3 and many others, MAE, PE, DINO's full file, I-JEPA."""

_COUNTED_ON = {"13": "1", "14": "2"}


def load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Every key of the file into the timm model and every key of the model from the file, classifiers apart.

    ``network`` is a timm vision transformer without classifier, ``name`` what errors call the teacher.

    Raises:
        UserError: no such file, one that cannot be read safely, or one that does not fit to the last key.
    """
    from timm.models import clean_state_dict

    state = _authors_layout(clean_state_dict(read_weights(path, f"teacher {name!r}", _WRAPPINGS)))
    _check_patch(network, state, path, name)
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        # On a file of some other model timm's conversion breaks down; the comparison below then says what is wrong.
        with suppress(RuntimeError, KeyError, ValueError, AttributeError, TypeError, IndexError):
            state = convert(state, network)
    facts: Any = network.pretrained_cfg
    classifier = facts.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
    own = network.state_dict()
    state = {key: tensor for key, tensor in state.items() if key in own or not key.startswith(heads)}
    # To the last key: a lenient load of a wrapped file loads nothing and leaves a random teacher, without an error.
    fit(network, state, f"{path} does not hold teacher {name!r}", "give the file of this model")


def _authors_layout(state: dict[str, Any]) -> dict[str, Any]:
    """The encoder alone, where a training script kept more beside it, under names without its defects."""
    if any(key.startswith("base_encoder.") for key in state):
        return _of_mocov3(state)
    if any(key.startswith("backbone.") for key in state):  # DINO's full file: the student or teacher with its head
        return _under("backbone.", state)
    if any(key.startswith("decoder_") for key in state):  # MAE with its decoder
        return {key: value for key, value in state.items() if not key.startswith(("decoder_", "mask_token"))}
    return state


def _of_mocov3(state: dict[str, Any]) -> dict[str, Any]:
    """MoCo v3's encoder without its head, the momentum encoder and the predictor.

    Published large files count the layers inside blocks 13 and 14 on: ``norm13``, ``fc13`` for the first, ``norm14``,
    ``fc14`` for the second.
    """
    encoder = {}
    for key, value in _under("base_encoder.", state).items():
        if key.split(".")[0] in ("head", "fc"):
            continue
        name = re.sub(
            r"^(blocks\.1[34]\.(?:norm|mlp\.fc))(1[34])\.", lambda found: f"{found[1]}{_COUNTED_ON[found[2]]}.", key
        )
        encoder[name] = value
    return encoder


def _under(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _check_patch(network: nn.Module, state: dict[str, Any], path: Path, name: str) -> None:
    """Refuses a file of another patch size, which timm would resample without a word."""
    patch = network.patch_embed.patch_size[0]  # type: ignore[union-attr, index]
    for value in state.values():
        if isinstance(value, Tensor) and value.ndim == 4 and value.shape[1] == 3 and value.shape[-1] != patch:
            raise UserError(
                f"{path} does not hold teacher {name!r}: its patches have {value.shape[-1]} pixels a side, the model's "
                f"{patch}; give the file of this model"
            )
