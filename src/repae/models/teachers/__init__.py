"""Teachers: frozen networks whose patch tokens the denoiser is aligned to, and the targets made of them."""
