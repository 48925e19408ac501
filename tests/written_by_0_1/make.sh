#!/bin/sh
# How the folders beside this file were made, with the program at version 0.1 (commit ab61301): sh make.sh, in an empty folder.
set -eu
export OMP_NUM_THREADS=1
python - <<'PY'
import numpy as np
from pathlib import Path
from PIL import Image

source = np.random.default_rng(0)
for label, name in enumerate(("circles", "squares")):
    folder = Path("images") / name
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(6):
        small = source.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((16, 16), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
PY
SMALL="--data.resolution 16 --sit.hidden-size 16 --sit.depth 3 --sit.num-heads 2 --sit.encoder-depth 1 --sit.projector-dim 16
 --vae.base-channels 8 --teachers.0.widths 8,8,8 --teachers.0.steps 2 --teachers.0.batch-size 6 --teachers.0.heads 2 --start.steps 2 --start.batch-size 6
 --loop.batch-size 6 --loop.log-every 1 --loop.checkpoint-every 3 --loop.keep-last 1 --discriminator.ndf 8 --discriminator.n-layers 1
 --losses.discriminator-weight 0.1 --losses.lecam-regularization-weight 0.01 --runtime.precision fp32 --runtime.workers 0 --runtime.threads 1
 --optimisers.denoiser.schedule.kind constant --optimisers.vae.schedule.kind constant --optimisers.denoiser.lr 1e-3
 --preview.every 100 --preview.per-class 2 --evaluation.images 8 --track.tensorboard false --track.progress false"
repae train folder --data images $SMALL --name joint --loop.steps 3
cp -r runs/joint joint-at-3
repae train folder --data images $SMALL --name joint --loop.steps 5
mv runs/joint joint-at-5
cp -r joint-at-3 runs/joint
repae sample runs/joint --num 4 --seed 3 --sampler.steps 4 --out samples
repae export runs/joint --out exported
repae cache runs/joint --data images --out latents --resolution 16 --runtime.device cpu
repae prepare images --out shards --resolution 16 --per-shard 6
ALONE=$(echo "$SMALL" | sed 's/--teachers[^ ]* [^ ]*//g; s/--losses[^ ]* [^ ]*//g')
repae train folder --data images $ALONE --name alone --method '{kind: vae}' --loop.steps 3 --losses.discriminator-weight 0 --losses.perceptual-weight 0 --perceptual.kind none --teachers '[]'
FROZEN=$(echo "$SMALL" | sed 's/--start[^ ]* [^ ]*//g; s/--losses[^ ]* [^ ]*//g')
repae train folder --data images $FROZEN --name frozen --method '{kind: repa}' --start.kind weights --start.path exported/vae --latents.path latents --loop.steps 3
# Kept small: what is written again at need is left out.
grep '"step": [45]' joint-at-5/metrics.jsonl > joint-steps-4-and-5.jsonl
mkdir joint-at-5-weights && cp joint-at-5/checkpoints/step-0000005/denoiser.safetensors joint-at-5/checkpoints/step-0000005/vae.safetensors joint-at-5-weights
mv runs kept
rm -rf joint-at-5 joint-at-3 kept/*/report.html kept/*/samples kept/cache/*/checkpoints kept/cache/vae-*
