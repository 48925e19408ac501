"""Measuring images: networks and their features, distances between sets, neighbours, reconstruction, latents."""

from repae.evaluation.cache import FeatureCache
from repae.evaluation.classifier import Classifier, Predictions, TrainedClassifier, classifier_for
from repae.evaluation.classifier_figures import unclassifiable
from repae.evaluation.comparison import Comparison, compare_images
from repae.evaluation.evaluator import Evaluator, Networks
from repae.evaluation.features import ClassifierFeatures, FeatureExtractor, TeacherFeatures
from repae.evaluation.frechet import Gaussian, frechet_distance, frechet_floor
from repae.evaluation.images import ImagesInFolder, ImagesInMemory, ImagesInNpz, ImagesOfDataset, open_images
from repae.evaluation.inception import Inception
from repae.evaluation.latent_space import cknna, latent_figures
from repae.evaluation.manifold import manifolds, nearest_images
from repae.evaluation.neighbours import neighbour_figures, precision_recall_density_coverage
from repae.evaluation.perceptual import LpipsConfig
from repae.evaluation.reconstruction import fixed_pattern, psnr, ssim
from repae.evaluation.reference import Reference, open_reference
from repae.evaluation.scores import inception_score, kernel_distance
from repae.evaluation.settings import ComparisonConfig, EvaluationConfig, FeaturesConfig
