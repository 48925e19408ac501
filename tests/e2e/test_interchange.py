"""docs/interchange.md, executed: its commands here, its Python in a process where this package does not exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import fake_hub
import numpy as np
import pytest
import reference_files as files
import torch
from PIL import Image

import repae
from repae.cli import main
from repae.flow import EulerMaruyama, Guidance, Heun

pytestmark = pytest.mark.slow

DOC = Path(__file__).parents[2] / "docs" / "interchange.md"
BLOCKS = re.findall(r"```(python)?\n(.*?)```", DOC.read_text(encoding="utf-8"), flags=re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if not kind for line in block.splitlines()]
(PYTHON,) = [block for kind, block in BLOCKS if kind]

TRAIN = """
digits-sit --name=digits --start.kind=scratch --loop.steps=2 --loop.batch-size=8 --backbone.hidden-size=16
--backbone.depth=2 --backbone.num-heads=2 --backbone.encoder-depth=1
--preview.sampler.steps=3 --preview.classes=2 --preview.per-class=1
--track.tensorboard=false --track.progress=false --runtime.device=cpu
"""

STRANGER = """
import sys
sys.modules["repae"] = None
try:
    import repae
except ImportError:
    pass
else:
    raise SystemExit("this package can still be imported")

import numpy as np
import torch

{python}

drawn = [np.asarray(image) for image in images]
guided = {{"guidance_scale": 1.5, "guidance_low": 0.2, "guidance_high": 0.7, "output_type": "np"}}
sde = pipe([3, 7], seed=4, sampler="euler-maruyama", num_inference_steps=5, **guided).images
joint = DiffusionPipeline.from_pretrained("joint-diffusers", custom_pipeline="joint-diffusers", trust_remote_code=True)
of_joint = joint([0, 9], seed=4, sampler="heun", num_inference_steps=3, **guided).images
plain = joint([0, 9], seed=4, output_type="np").images

pixels = torch.from_numpy(np.load("pixels.npy"))
with torch.no_grad():
    mean, std = (torch.tensor(vae.config[name])[:, None, None] for name in ("latents_mean", "latents_std"))
    normal = (vae.encode(pixels.float() / 127.5 - 1).latent_dist.mode() - mean) / std
    back = vae.decode(normal * std + mean).sample
rebuilt = ((back + 1) * 127.5).round().clamp(0, 255).byte().numpy()
np.savez("stranger.npz", drawn=drawn, sde=sde, of_joint=of_joint, plain=plain, rebuilt=rebuilt, normal=normal.numpy())
assert not any(name.startswith("repae.") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the page names: a checkpoint of the reference, a run, images."""
    folder = tmp_path_factory.mktemp("place")
    files.write_joint(folder)
    for number in range(10):
        (folder / "images" / f"class{number}").mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"class{number}" / "a.png")
    assert main(["train", *TRAIN.split(), "--runs", str(folder / "runs")]) == 0
    return folder


def test_the_page(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command does what it says, training is planned only; then a stranger draws our images without us."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    commands = [shlex.split(line)[1:] for line in COMMANDS]
    # The page shows what comes in first; what it trains on then comes out of a later block.
    commands.sort(key=lambda words: words[0] == "train")
    with fake_hub.running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        for words in commands:
            assert main([*words, *(["--dry-run"] if words[0] == "train" else [])]) == 0, words
    assert {"README.md", "pipeline.py", "transformer/sit_transformer.py", "recipe.yaml"} <= hub.files.keys()
    back = torch.load("joint-reference/0000003.pt", weights_only=False)
    files.equal(torch.load("0000003.pt", weights_only=False), back)

    joint, digits = repae.load("imported/joint"), repae.load("runs/digits")
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    np.save("pixels.npy", pixels.numpy())
    environment = {**os.environ, "HF_HOME": str(place / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", STRANGER.format(python=PYTHON)],
        capture_output=True, text=True, cwd=place, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = np.load("stranger.npz")

    guided = Guidance(scale=1.5, low=0.2, high=0.7)
    few, ends = torch.tensor([3, 7]), torch.tensor([0, 9])
    ours = {
        "drawn": digits.sample(few, seed=0, sampler=Heun(steps=20))[:, 0],
        "sde": digits.sample(few, seed=4, sampler=EulerMaruyama(steps=5), guidance=guided).permute(0, 2, 3, 1),
        "of_joint": joint.sample(ends, seed=4, sampler=Heun(steps=3), guidance=guided).permute(0, 2, 3, 1),
        "plain": joint.sample(ends, seed=4).permute(0, 2, 3, 1),
        "rebuilt": joint.bundle.reconstruct(pixels),
    }
    for name, images in ours.items():
        assert images.float().std() > 5, name
        assert abs(theirs[name].astype(int) - images.numpy().astype(int)).max() <= 1, name
    normal = joint.bundle.encode(pixels, torch.zeros(3, 4, 8, 8)).numpy()
    assert abs(theirs["normal"] - normal).max() < 1e-4
