"""SiT: sizes, token order, embeddings, label dropout, attention; values against the reference are in tests/golden."""

import math

import pytest
import torch
from errors import refused
from torch import nn

from repae.config import UserError
from repae.models import Denoiser, SiT, SiTConfig
from repae.models.backbones.shared import Attention, TimeEmbedder, position_table

SMALL = SiTConfig(input_size=8, patch_size=2, in_channels=3, hidden_size=24, depth=2, num_heads=3, num_classes=5)


def awake(config: SiTConfig = SMALL) -> SiT:
    """A SiT whose zero-initialised layers have been moved, so that every part has an effect."""
    model = SiT(config)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return model.eval()


def inputs(batch: int = 4, config: SiTConfig = SMALL):
    x = torch.randn(batch, config.in_channels, config.input_size, config.input_size)
    return x, torch.rand(batch), torch.randint(config.num_classes, (batch,))


@pytest.mark.parametrize(
    ("name", "latent", "millions"),
    [
        ("SiT-XL/2", (32, 4), 683.24),
        ("SiT-XL/1", (16, 32), 683.28),
        ("SiT-L/2", (32, 4), 465.96),
        ("SiT-B/2", (32, 4), 137.85),
        ("SiT-S/2", (32, 4), 39.52),
    ],
)
def test_published_sizes(name, latent, millions):
    """Millions of numbers with one projector to 768, the fixed position table included, as the reference counts them.

    For S the reference gives 40.41, with a final layer of another model's width, and cannot run.
    """
    side, channels = latent
    with torch.device("meta"):
        denoiser = Denoiser(SiT(SiTConfig.preset(name, input_size=side, in_channels=channels)), [768], 8, 2048)
    table = denoiser.backbone.pos_embed
    assert denoiser.backbone.config.tokens == table.shape[1] == 256
    trained = sum(parameter.numel() for parameter in denoiser.parameters() if parameter.requires_grad)
    assert round((trained + table.numel()) / 1e6, 2) == millions


@pytest.mark.parametrize("size", ["S", "B", "L", "XL"])
@pytest.mark.parametrize("patch", [1, 2, 4, 8])
def test_every_preset_exists(size, patch):
    """Four sizes, four patches, with fields that can still be changed."""
    config = SiTConfig.preset(f"SiT-{size}/{patch}", num_classes=7)
    assert config.tokens == (32 // patch) ** 2 and config.null_label == 7


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"hidden_size": 100, "num_heads": 16}, ["num_heads 16", "hidden_size 100", 20]),
        ({"input_size": 9, "patch_size": 2}, ["input_size 9", "patch_size 2", "multiple of 2"]),
        ({"hidden_size": 6, "num_heads": 3}, ["hidden_size 6", "multiple of 4"]),
        ({"depht": 3}, ["depht", "did you mean 'depth'"]),
    ],
)
def test_sizes_that_do_not_fit(changes, facts):
    """One line that names the values seen."""
    with refused(UserError, *facts):
        SiTConfig(**changes)


def test_unknown_preset():
    """With a suggestion."""
    with refused(UserError, "'sit-xl-2'", "SiT-XL/1", "SiT-S/8", "did you mean 'SiT-XL/2'"):
        SiTConfig.preset("sit-xl-2")


def test_latents_of_another_shape():
    """Refused before the position table would broadcast or fail."""
    x, t, y = inputs()
    with refused(UserError, "(3, 8, 8)", "(3, 4, 4)", "in_channels", "input_size"):
        SiT(SMALL)(x[..., :4, :4], t, y)


def test_it_starts_as_nothing():
    """adaLN-Zero: every block the identity, the velocity zero."""
    model = SiT(SMALL)
    x, t, y = inputs()
    tokens, _ = model.eval().embed(x, t, y)
    assert torch.equal(model.features(x, t, y, SMALL.depth), tokens)
    assert not model(x, t, y).any()


def test_features_are_the_tokens_between_blocks():
    """`features` after each block, then the rest of the way, is the forward pass."""
    model = awake()
    x, t, y = inputs()
    _, condition = model.embed(x, t, y)
    for depth in range(SMALL.depth + 1):
        tokens = model.run(model.features(x, t, y, depth), condition, start=depth)
        assert torch.equal(model.final(tokens, condition), model(x, t, y))
    with refused(UserError, "block 3", "0 to 2"):
        model.features(x, t, y, 3)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_tokens_are_patches_row_by_row(patch):
    """Patches that are embedded as themselves in the order (row, column, channel) come out as the image they were."""
    width = max(patch * patch * 4, 4)
    model = SiT(SiTConfig(input_size=8, patch_size=patch, in_channels=4, hidden_size=width, depth=1, num_heads=1))
    with torch.no_grad():
        model.pos_embed.zero_()
        kernel = torch.eye(width).view(width, patch, patch, 4).permute(0, 3, 1, 2)
        model.x_embedder.proj.weight.copy_(kernel)
    x = torch.randn(2, 4, 8, 8)
    tokens, condition = model.embed(x, torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    first_row = x[:, :, :patch].unfold(3, patch, patch).permute(0, 3, 2, 4, 1).flatten(2)
    assert torch.equal(tokens[:, : 8 // patch], first_row)
    model.final_layer.forward = lambda tokens, condition: tokens
    assert torch.equal(model.final(tokens, condition), x)


def test_position_table():
    """Closed form of each entry: column first, then row; sines, then cosines; and the table never trains."""
    side, width = 3, 16
    table = position_table(width, side)[0].double()
    for token in range(side * side):
        row, column = divmod(token, side)
        for half, place in ((0, column), (1, row)):
            for k in range(width // 4):
                angle = place * 10000 ** (-k / (width // 4))
                at = half * width // 2 + k
                assert math.isclose(table[token, at], math.sin(angle), abs_tol=1e-6)
                assert math.isclose(table[token, at + width // 4], math.cos(angle), abs_tol=1e-6)
    model = SiT(SMALL)
    assert "pos_embed" in model.state_dict() and "pos_embed" not in dict(model.named_parameters())


def test_time_enters_as_it_is():
    """Cosines, then sines, of t (not 1000 t) times 1 .. nearly 1/10000."""
    embedder = TimeEmbedder(8)
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    seen = []
    embedder.mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    embedder.double()(t)
    frequency = 10000.0 ** -(torch.arange(128, dtype=torch.float64) / 128)
    expected = torch.cat((torch.cos(t[:, None] * frequency), torch.sin(t[:, None] * frequency)), dim=1)
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize("training", [True, False])
def test_a_given_mask_drops_labels(training):
    """Exactly those, in train and eval mode, and nothing else is drawn."""
    model = awake().train(training)
    x, t, y = inputs()
    drop = torch.tensor([True, False, False, True])
    keep = torch.zeros(4, dtype=torch.bool)
    null = torch.where(drop, SMALL.num_classes, y)
    assert torch.equal(model(x, t, y, drop), model(x, t, null, keep))
    assert not torch.equal(model(x, t, y, drop)[0], model(x, t, y, keep)[0])


def test_labels_are_drawn_in_train_mode_only():
    """With probability 1 all are dropped in train mode; in eval mode none."""
    config = SMALL.replace(class_dropout_prob=1.0)
    model = awake(config)
    x, t, y = inputs()
    nobody = torch.full_like(y, config.num_classes)
    assert not torch.equal(model(x, t, y), model(x, t, nobody))
    model.train()
    assert torch.equal(model(x, t, y), model(x, t, nobody))


def test_without_dropout_there_is_no_null_label():
    """No row for it in the table, and none that a class could be mistaken for."""
    config = SMALL.replace(class_dropout_prob=0.0)
    assert config.null_label is None
    assert SiT(config).y_embedder.embedding_table.num_embeddings == config.num_classes
    assert SiT(SMALL).y_embedder.embedding_table.num_embeddings == SMALL.num_classes + 1


@pytest.mark.parametrize("qk_norm", [True, False])
def test_both_attentions_agree(qk_norm):
    """torch's fused attention and explicit products: values and gradients."""
    config = SMALL.replace(qk_norm=qk_norm)
    fused = awake(config)
    explicit = SiT(config.replace(fused_attn=False)).eval()
    explicit.load_state_dict(fused.state_dict())
    results = []
    for model in (fused.double(), explicit.double()):
        x, t, y = inputs_of_seed(1)
        out = model(x.requires_grad_(True), t, y)
        out.square().sum().backward()
        results.append((out, x.grad))
    for one, other in zip(*results):
        torch.testing.assert_close(one, other)


def inputs_of_seed(seed: int):
    torch.manual_seed(seed)
    x, t, y = inputs()
    return x.double(), t.double(), y


def test_qk_norm_takes_the_scale_from_queries_and_keys():
    """Per-head LayerNorm: ten times larger queries and keys give the same attention."""
    attention = Attention(24, 3, nn.LayerNorm, fused=True)
    x = torch.randn(2, 5, 24)
    before = attention(x)
    with torch.no_grad():
        attention.qkv.weight[:48] *= 10
        attention.qkv.bias[:48] *= 10
    torch.testing.assert_close(attention(x), before, rtol=1e-3, atol=1e-4)


def test_it_runs_under_autocast_and_in_bfloat16():
    """With qk-norm too, whose norms may answer in another precision; the values stay close to float32."""
    model = awake(SMALL.replace(qk_norm=True))
    x, t, y = inputs()
    expected = model(x, t, y)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(x, t, y).float(), expected, rtol=0.1, atol=0.1)
    half = model.to(torch.bfloat16)
    torch.testing.assert_close(half(x.bfloat16(), t, y).float(), expected, rtol=0.1, atol=0.1)
