"""The methods of training, one file each; importing this package registers them."""

from repae.training.method import AnyMethod
from repae.training.methods.naive import Naive
from repae.training.methods.repa import Repa
from repae.training.methods.repae import RepaE
from repae.training.methods.vae import VaeOnly

__all__ = ["AnyMethod", "Naive", "Repa", "RepaE", "VaeOnly"]
