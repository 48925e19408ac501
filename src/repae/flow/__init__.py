"""Flow matching between data (t = 0) and noise (t = 1): paths, times, conversions, guidance, samplers."""

from repae.flow.adaptive import dormand_prince
from repae.flow.convert import (
    data_to_velocity,
    noise_to_velocity,
    score_to_velocity,
    velocity_to_data,
    velocity_to_noise,
    velocity_to_score,
)
from repae.flow.guidance import UNGUIDED, Autoguidance, Guidance, Network, VelocityField, autoguide, guide
from repae.flow.path import AnyPath, CosinePath, LinearPath, Path, PathSample
from repae.flow.samplers import (
    AnySampler,
    DormandPrince,
    Euler,
    EulerMaruyama,
    Heun,
    Noise,
    Sampler,
    euler,
    euler_maruyama,
    heun,
)
from repae.flow.time import AnyTime, LogNormalTime, Time, UniformTime

__all__ = [
    "UNGUIDED",
    "AnyPath",
    "AnySampler",
    "AnyTime",
    "Autoguidance",
    "CosinePath",
    "DormandPrince",
    "Euler",
    "EulerMaruyama",
    "Guidance",
    "Heun",
    "LinearPath",
    "LogNormalTime",
    "Network",
    "Noise",
    "Path",
    "PathSample",
    "Sampler",
    "Time",
    "UniformTime",
    "VelocityField",
    "autoguide",
    "data_to_velocity",
    "dormand_prince",
    "euler",
    "euler_maruyama",
    "guide",
    "heun",
    "noise_to_velocity",
    "score_to_velocity",
    "velocity_to_data",
    "velocity_to_noise",
    "velocity_to_score",
]
