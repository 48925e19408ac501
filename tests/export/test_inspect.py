"""What a file or a folder is said to be, and above all whether generator and autoencoder belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import reference_files as files
import torch
from errors import refused
from safetensors.torch import load_file, save_file

from repae.config import UserError
from repae.data.shard_folder import FieldSpec, ShardPlan
from repae.data.shard_writer import ShardWriter, begin, finish
from repae.export.folders import WEIGHTS, write_pipeline
from repae.export.inspect import inspect, parameters
from repae.flow import Euler, Guidance
from repae.models import Bundle
from repae.models.reference_keys import vae_from_reference
from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.digest import short_digest


def test_a_pipeline_knows_its_autoencoder(kl: Bundle, tmp_path: Path) -> None:
    """Another autoencoder of the same sizes in its place is noticed, by digest and not by shape."""
    write_pipeline(
        tmp_path, kl, path="linear", sampler=Euler(), guidance=Guidance(), precision="fp32",
        class_names=["a", "b", "c"], resolution=32,
    )  # fmt: skip
    found = inspect(tmp_path)
    assert found.what == "diffusers pipeline SiTPipeline" and found.together.startswith("yes")
    assert found.facts["latent mean"] == "0.5, -1, 2, 0"
    assert found.parts["vae"] == (parameters(kl.vae.state_dict()), short_digest(kl.vae.state_dict()))
    file = tmp_path / "vae" / WEIGHTS
    state = load_file(file)
    state["decoder.conv_out.bias"] += 1e-6
    save_file(state, file, metadata={"format": "pt"})
    assert inspect(tmp_path).together.startswith("NO: the generator was trained on autoencoder")
    alone = inspect(tmp_path / "vae")
    assert alone.what == "diffusers model AutoencoderKL" and not alone.together


def test_files_of_the_reference(tmp_path: Path) -> None:
    """A joint checkpoint, an autoencoder, bare weights that cannot be imported as they are, and tensors of anything."""
    joint = inspect(files.write_joint(tmp_path))
    assert joint.what == "checkpoint of REPA-E" and joint.facts["step"] == "3" and joint.together.startswith("yes")
    converted = vae_from_reference(files.weights("vae"))
    assert joint.parts["vae"] == (293_159, short_digest(converted))
    assert joint.parts["denoiser"] != joint.parts["ema_denoiser"]
    vae = inspect(files.write_autoencoder(tmp_path))
    assert vae.what == "autoencoder of the reference" and vae.parts["vae"] == joint.parts["vae"]
    save_file(files.without_projectors(files.weights("ema")), tmp_path / "bare.safetensors")
    bare = inspect(tmp_path / "bare.safetensors")
    assert "--num-heads" in bare.facts["import"] and bare.parts["tensors"][0] > 100_000
    told = inspect(tmp_path / "bare.safetensors", num_heads=4, origin="REPA")
    assert told.together.startswith("not shown")
    torch.save({"a": {"w": torch.zeros(3, 2)}, "b": 1}, tmp_path / "other.pt")
    assert inspect(tmp_path / "other.pt").parts == {"a": (6, short_digest({"w": torch.zeros(3, 2)}))}


def test_a_stage_without_a_recipe_and_nothing_at_all(kl: Bundle, tmp_path: Path) -> None:
    """Checkpoints of preparatory stages have parts and steps; an empty folder is refused in words."""
    store = CheckpointStore(tmp_path / "stage" / "checkpoints")
    path = store.save(4, {"vae": kl.vae}, {"stage": "autoencoder"})
    for place in (path, tmp_path / "stage"):
        found = inspect(place)
        assert found.facts == {"step": "4"} and list(found.parts) == ["vae"]
    (tmp_path / "new" / "checkpoints").mkdir(parents=True)
    with refused(UserError, tmp_path / "new", "has no checkpoint yet", "`repae train"):
        inspect(tmp_path / "new")
    with refused(UserError, tmp_path, "inspected", "a run", "a checkpoint", ".safetensors"):
        inspect(tmp_path)


@pytest.mark.parametrize("kind", ["images", "latents"])
def test_folders_of_shards(kind: Literal["images", "latents"], tmp_path: Path) -> None:
    """Prepared images and cached latents say how many they are, and latents which autoencoder they are of."""
    about = {"resolution": 8, "classes": ["a", "b"], "vae": "a9eb591a5b39ff", "data": "0c38f69e27a8ff"}
    field = FieldSpec(name="mean", dtype="float32", shape=(2, 1, 1))
    plan = ShardPlan(kind=kind, count=3, per_shard=2, fields=(field,), about=about)
    begin(tmp_path, plan)
    for number in range(plan.shards):
        with ShardWriter(tmp_path, plan, number) as shard:
            for item in plan.span(number):
                shard.add(f"{item}.png", item % 2, mean=np.zeros((2, 1, 1), np.float32))
            shard.commit()
    finish(tmp_path, plan, 2)
    found = inspect(tmp_path)
    assert found.facts["items"] == "3 in 2 shards, 0 refused" and found.facts["arrays"] == "mean float32 2 x 1 x 1"
    assert (found.facts.get("autoencoder") == "digest a9eb591a5b39") == (kind == "latents")
    (tmp_path / "manifest.json").write_text("{}")
    with refused(UserError, tmp_path / "manifest.json", "kind None", "`repae prepare`", "`repae cache`"):
        inspect(tmp_path)


def test_the_digest_depends_on_names_shapes_and_values_only() -> None:
    """Not on order, not on the wrapper's prefix, and on every value, of 0-dimensional and half tensors too."""
    state = {"model.a": torch.arange(4.0), "b": torch.tensor(3), "c": torch.ones(2, dtype=torch.bfloat16)}
    same = {"c": state["c"].clone(), "a": state["model.a"], "b": state["b"]}
    assert short_digest(state) == short_digest(same) and len(short_digest(state)) == 12
    others = [
        {**same, "b": torch.tensor(4)},
        {**same, "a": same["a"].reshape(2, 2)},
        {**same, "c": same["c"].float()},
        {"d": same["c"], "a": same["a"], "b": same["b"]},
    ]
    assert len({short_digest(other) for other in [same, *others]}) == 5
