"""Judging images: networks and their features, distances between sets, nearest neighbours, reconstruction, latents."""

from repae.evaluate.alone import AutoencoderAlone
from repae.evaluate.cache import FeatureCache
from repae.evaluate.classifier import Classifier, Judge, Judgement, judge_for
from repae.evaluate.comparison import Comparison, compare
from repae.evaluate.digits import unjudgeable
from repae.evaluate.features import ClassifierFeatures, FeatureExtractor, TeacherFeatures
from repae.evaluate.frechet import Gaussian, Moments, frechet_distance, frechet_floor, gaussian_frechet
from repae.evaluate.images import ImagesInFolder, ImagesInMemory, ImagesInNpz, ImagesOfDataset, open_images
from repae.evaluate.inception import Inception
from repae.evaluate.latents import cknna, latent_figures
from repae.evaluate.manifold import manifolds, nearest_images
from repae.evaluate.neighbours import neighbour_figures, precision_recall_density_coverage
from repae.evaluate.perceptual import LpipsConfig
from repae.evaluate.reconstruction import fixed_pattern, psnr, ssim
from repae.evaluate.reference import Reference, open_reference
from repae.evaluate.run import Judged, Networks, evaluate
from repae.evaluate.scores import inception_score, kernel_distance
from repae.evaluate.settings import ComparisonConfig, EvaluationConfig, FeaturesConfig

__all__ = [
    "AutoencoderAlone",
    "Classifier",
    "ClassifierFeatures",
    "Comparison",
    "ComparisonConfig",
    "EvaluationConfig",
    "FeatureCache",
    "FeatureExtractor",
    "FeaturesConfig",
    "Gaussian",
    "ImagesInFolder",
    "ImagesInMemory",
    "ImagesInNpz",
    "ImagesOfDataset",
    "Inception",
    "Judge",
    "Judged",
    "Judgement",
    "LpipsConfig",
    "Moments",
    "Networks",
    "Reference",
    "TeacherFeatures",
    "cknna",
    "compare",
    "evaluate",
    "fixed_pattern",
    "frechet_distance",
    "frechet_floor",
    "gaussian_frechet",
    "inception_score",
    "judge_for",
    "kernel_distance",
    "latent_figures",
    "manifolds",
    "nearest_images",
    "neighbour_figures",
    "open_images",
    "open_reference",
    "precision_recall_density_coverage",
    "psnr",
    "ssim",
    "unjudgeable",
]
