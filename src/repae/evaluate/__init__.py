"""Judging images: an independent classifier, Frechet distance, nearest neighbours, reconstruction."""

from repae.evaluate.classifier import Classifier, Judge, Judgement, judge_for
from repae.evaluate.digits import EvaluationConfig, Judged, evaluate, unjudgeable
from repae.evaluate.frechet import frechet_distance, frechet_floor, gaussian_frechet
from repae.evaluate.neighbours import neighbour_figures, precision_recall_density_coverage
from repae.evaluate.reconstruction import fixed_pattern, psnr, ssim

__all__ = [
    "Classifier",
    "EvaluationConfig",
    "Judge",
    "Judged",
    "Judgement",
    "evaluate",
    "fixed_pattern",
    "frechet_distance",
    "frechet_floor",
    "gaussian_frechet",
    "judge_for",
    "neighbour_figures",
    "precision_recall_density_coverage",
    "psnr",
    "ssim",
    "unjudgeable",
]
