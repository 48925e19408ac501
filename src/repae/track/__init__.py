"""Records of a run: JSON lines, TensorBoard, Weights & Biases, a progress bar. One small contract, one file each."""

from repae.track.base import Tracker
from repae.track.jsonl import JsonlTracker, read_metrics
from repae.track.progress import ProgressBar, duration
from repae.track.tensorboard import TensorBoardTracker
from repae.track.wandb import WandbTracker
