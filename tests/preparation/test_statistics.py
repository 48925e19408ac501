"""Statistics of latents: streaming equals the whole, and cached latents give what the autoencoder gives."""

from __future__ import annotations

from pathlib import Path

import torch
from encoders import CPU, IMAGES, autoencoder, data, encoder, pictures
from hypothesis import given
from hypothesis import strategies as st

from repae.data.batch import Latents
from repae.data.latent_cache import CachedLatents
from repae.models.pixels import to_symmetric
from repae.preparation.encode_latents import CacheSettings, cache_latents
from repae.preparation.statistics import latent_statistics, moment_statistics, stored_statistics
from repae.runtime.precision import Precision


@given(seed=st.integers(0, 1000), count=st.integers(1, 40), part=st.integers(1, 40), shift=st.floats(-50, 50))
def test_streaming_equals_the_whole(seed: int, count: int, part: int, shift: float) -> None:
    """To 1e-6, whatever the batches: against a two-pass computation in float64 over everything at once."""
    source = torch.Generator().manual_seed(seed)
    mean = torch.randn(count, 3, 4, 5, generator=source) + shift
    std = torch.rand(count, 3, 4, 5, generator=source)
    found = moment_statistics(map(Latents, mean.split(part), std.split(part)))
    whole = mean.double()
    variance = whole.var((0, 2, 3), correction=0) + std.double().square().mean((0, 2, 3))
    torch.testing.assert_close(found[0], whole.mean((0, 2, 3)), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found[1], variance.sqrt(), rtol=1e-6, atol=1e-9)


def test_they_are_those_of_samples() -> None:
    """The closed form against z = mean + std noise, drawn many times."""
    source = torch.Generator().manual_seed(0)
    mean, std = torch.randn(8, 2, 4, 4, generator=source), 0.5 + torch.rand(8, 2, 4, 4, generator=source)
    z = mean + std * torch.randn(4000, 8, 2, 4, 4, generator=source)
    found = moment_statistics([Latents(mean, std)])
    torch.testing.assert_close(z.double().mean((0, 1, 3, 4)), found[0], atol=5e-3, rtol=0)
    torch.testing.assert_close(z.double().std((0, 1, 3, 4)), found[1], atol=5e-3, rtol=0)


def test_a_cache_and_its_autoencoder_agree(tmp_path: Path) -> None:
    """To the last bit in float32: a run on cached latents normalises as one on the images does."""
    dataset, vae = data(pictures(tmp_path / "images")).open(), autoencoder()
    cache_latents(tmp_path / "out", dataset, encoder(), CacheSettings(dtype="fp32", batch_size=3, per_shard=5))
    store = CachedLatents(tmp_path / "out")
    mean, std = latent_statistics(vae, dataset, Precision("fp32", CPU))
    assert store.statistics is not None and store.statistics.images == IMAGES
    for stored in (store.statistics.tensors(), stored_statistics(store)):
        torch.testing.assert_close(stored[0], mean, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(stored[1], std, rtol=1e-6, atol=1e-9)
    assert store.statistics.tensors()[0].tolist() == mean.tolist()
    moments, logvar = vae.encode(to_symmetric(dataset.batch(torch.arange(IMAGES)).images))
    torch.testing.assert_close(mean, moments.double().mean((0, 2, 3)), rtol=1e-6, atol=1e-9)
    assert logvar.isfinite().all()
