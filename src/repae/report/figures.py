"""What the figures of a run are called and what they mean, for people."""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """A figure of the evaluation: its name, its meaning, how it is written, and the figure that it is held against."""

    name: str
    meaning: str
    form: str = "{:.3f}"
    against: str | None = None
    against_words: str = ""


COPIES = "share nearer to a real image than 99% of real images are to each other"
GUIDED = {
    "accuracy_guided": Figure(
        "Accuracy, guided", "share of images that an independent classifier takes for the class they were made for"
    ),
}
UNGUIDED = {
    "accuracy": Figure("Accuracy, unguided", "the same without guidance, which flatters every model less"),
    "fd": Figure(
        "Frechet distance",
        "between real and generated images in the classifier's features; lower is better",
        "{:.2f}",
        "fd_floor",
        "one half of the real images against the other",
    ),
    "nn_accuracy": Figure(
        "1-NN accuracy",
        "share of images whose nearest real image, in pixels, has the class they were made for",
        against="nn_accuracy_real",
        against_words="real images",
    ),
    "precision": Figure("Precision", "share of generated images that lie among the real ones"),
    "recall": Figure("Recall", "share of real images that lie among the generated ones"),
    "density": Figure("Density", "how densely real images surround the generated ones; 1 is like real"),
    "coverage": Figure("Coverage", "share of real images with a generated one nearby"),
    "nn_distance": Figure(
        "Distance to the nearest real image",
        "median, in pixels; far below that of real images would mean copies",
        against="nn_distance_real",
        against_words="real images to their nearest other",
    ),
    "copies": Figure("Nearly copies", COPIES),
}
RECONSTRUCTION = {
    "psnr": Figure("PSNR", "of reconstructed real images, in dB; higher is better", "{:.1f} dB"),
    "ssim": Figure("SSIM", "structural similarity of reconstructed real images; 1 is equal"),
    "fixed_pattern": Figure(
        "Fixed pattern", "share of the reconstruction error that is one repeated lattice; 0 is none", "{:.1%}"
    ),
    "lpips": Figure("LPIPS", "perceptual distance of reconstructed real images; 0 is equal"),
}
NETWORKS = {
    "teacher": "the run's own teacher, which it was trained towards",
    "teacher2": "the run's second teacher",
    "classifier": "the classifier",
    "dinov2": "DINOv2 ViT-L/14 (class token)",
    "timm": "a transformer of timm",
}
"""Networks in whose features sets are compared, Inception apart; figures end on their names."""

INCEPTION = {
    "fid": Figure("FID", "Frechet distance in Inception's pool features; lower is better", "{:.2f}"),
    "sfid": Figure("sFID", "the same in 7 channels of an early block, over places", "{:.2f}"),
    "inception_score": Figure("Inception Score", "sharp and varied classes; higher is better", "{:.1f}"),
    "kid": Figure("KID", "kernel distance in pool features, unbiased", "{:.5f}"),
    "precision_inception": Figure("Precision", "share of generated images on the manifold of the real ones"),
    "recall_inception": Figure("Recall", "share of real images on the manifold of the generated ones"),
    "copies_inception": Figure("Nearly copies", COPIES),
    "rfid": Figure("rFID", "FID of reconstructions and the images they were made of", "{:.2f}"),
}
LATENT = {
    "latent_channels_used": Figure("Channels used", "how many channels the latents fill", "{:.1f}"),
    "latent_high_frequency": Figure("High frequencies", "share of variance above half of the highest frequency"),
    "latent_probe_accuracy": Figure("Linear probe", "accuracy of a linear classifier on latents, held-out fifth"),
    "latent_cknna": Figure("CKNNA", "alignment of nearest neighbours with the teacher's; 1 is the same"),
}


def _in_features_of(network: str) -> dict[str, Figure]:
    words = NETWORKS[network]
    return {
        f"fd_{network}": Figure(f"Frechet distance, {network}", f"in the features of {words}", "{:.3g}"),
        f"kd_{network}": Figure(f"Kernel distance, {network}", "unbiased, may be below 0", "{:.3g}"),
        f"precision_{network}": Figure(f"Precision, {network}", "share of generated images on the real manifold"),
        f"recall_{network}": Figure(f"Recall, {network}", "share of real images on the generated manifold"),
        f"copies_{network}": Figure(f"Nearly copies, {network}", COPIES),
        f"rfd_{network}": Figure(
            f"Frechet distance of reconstructions, {network}", "to the images they were made of", "{:.3g}"
        ),
    }


GROUPS = {
    "Generated with guidance": GUIDED,
    "Generated without guidance": UNGUIDED,
    "In Inception's features": INCEPTION,
    "In the features of other networks": {
        key: figure for network in NETWORKS for key, figure in _in_features_of(network).items()
    },
    "Reconstructed real images": RECONSTRUCTION,
    "Latents of real images": LATENT,
}
FIGURES = {key: figure for members in GROUPS.values() for key, figure in members.items()}
"""Every figure with a name, in the order of the report."""

RECONSTRUCTED = ("psnr", "ssim", "lpips", "fixed_pattern", "rfid", "rfd_", "latent_")
"""How the names of figures begin that no generated image enters."""

LOWER = ("fd", "fid", "sfid", "kid", "kd_", "rfid", "rfd_", "lpips", "fixed_pattern")
HIGHER = (
    "accuracy", "nn_accuracy", "precision", "recall", "coverage", "inception_score", "psnr", "ssim",
    "latent_probe_accuracy",
)  # fmt: skip
"""How the names begin of figures of which the lower, or the higher, is the better."""

TEACHER = {
    "random_cosine": "cosine of two tokens of different images; near 1, the teacher says the same of everything",
    "position_share": "share of token variance that is the place in the image",
    "image_share": "share of token variance that is the image as a whole",
    "label_cosine": "cosine reached from class and place alone, without looking at the image",
    "probe_accuracy": "accuracy of a linear probe on mean tokens, held-out fifth",
    "neighbour_accuracy": "accuracy of the nearest other mean token",
    "steps": "training steps",
    "seconds": "seconds of training",
}


class Panel(NamedTuple):
    """A chart: its title, its keys with the names they are shown under, and a sentence."""

    title: str
    keys: dict[str, str]
    about: str = ""


EVALUATED = "eval_"
"""How names of metrics begin that an evaluation during training has found."""

PANELS = (
    Panel("FID", {"eval_fid": "FID"}, "Found during training, on fewer images than the results: for comparing steps."),
    Panel(
        "Frechet distance",
        {"eval_fd": "classifier", "eval_fd_teacher": "teacher", "eval_fd_dinov2": "DINOv2"},
        "Found during training, on fewer images than the results: for comparing steps.",
    ),
    Panel(
        "Accuracy of generated images",
        {"eval_accuracy_guided": "guided", "eval_accuracy": "unguided", "eval_nn_accuracy": "1-NN, unguided"},
        "Share that is taken for the class it was made for.",
    ),
    Panel(
        "Precision and recall, in pixels",
        {"eval_precision": "precision", "eval_recall": "recall", "eval_coverage": "coverage"},
        "Of images generated without guidance.",
    ),
    Panel("Reconstruction, PSNR", {"eval_psnr": "dB", "psnr": "dB, few images"}, "Of the weights that are evaluated."),
    Panel(
        "Denoiser", {"sit_loss": "total", "denoising_loss": "flow matching"}, "Flow matching plus weighted alignment."
    ),
    Panel(
        "Alignment",
        {"proj_loss": "denoiser", "vae_align_loss": "VAE"},
        "Negative cosine to the teacher's tokens; -1 is full agreement.",
    ),
    Panel("Autoencoder", {"vae_loss": "total"}, "Everything that the VAE is trained on, alignment included."),
    Panel("Reconstruction", {"reconstruction_loss": "pixels", "perceptual_loss": "perceptual"}),
    Panel("KL divergence", {"kl_loss": "KL"}, "Of the posterior from the standard normal, as it enters the loss."),
    Panel("Discriminator", {"d_loss": "discriminator", "gan_loss": "generator", "weighted_gan_loss": "weighted"}),
    Panel("Logits", {"logits_real": "real", "logits_fake": "reconstructed"}, "Far apart: the discriminator wins."),
    Panel("LeCam regularisation", {"lecam_loss": "LeCam"}),
    Panel(
        "Gradient norms",
        {"grad_norm_sit": "denoiser", "grad_norm_vae": "VAE", "grad_norm_disc": "discriminator"},
        "Before clipping.",
    ),
    Panel(
        "Latent scale",
        {"latent_std": "mean", "latent_std_max": "largest"},
        "Standard deviation of latent channels; joint training lets it drift and the normaliser takes it out.",
    ),
)
UNSHOWN = {"step", "wall", "epoch", "d_weight", "discriminator_factor"}
