"""Denoiser: three passes that agree, an alignment pass that stops early, gradients that reach everything."""

import pytest
import torch
from errors import refused
from torch import nn

from repae.config import UserError
from repae.models import Denoiser, SiT, SiTConfig

SMALL = SiTConfig(input_size=8, patch_size=2, in_channels=3, hidden_size=24, depth=3, num_heads=3, num_classes=5)
DIMS = (7, 10)


def awake(z_dims=DIMS, encoder_depth=2) -> Denoiser:
    """With no layer at zero."""
    model = Denoiser(SiT(SMALL), z_dims, encoder_depth, 16)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return model


def inputs(batch=4):
    x = torch.randn(batch, SMALL.in_channels, SMALL.input_size, SMALL.input_size)
    return x, torch.rand(batch), torch.randint(SMALL.num_classes, (batch,))


@pytest.mark.parametrize("encoder_depth", [1, 2, 3])
def test_forward_is_velocity_and_projection(encoder_depth):
    """One training pass gives what sampling and alignment give apart, bit for bit, at any depth."""
    model = awake(encoder_depth=encoder_depth).eval()
    velocity, projected = model(*inputs_seeded())
    assert torch.equal(velocity, model.velocity(*inputs_seeded()))
    alone = model.project(*inputs_seeded())
    assert [tokens.shape for tokens in projected] == [(4, SMALL.tokens, width) for width in DIMS]
    for one, other in zip(projected, alone):
        assert torch.equal(one, other)
    tokens = model.backbone.features(*inputs_seeded(), encoder_depth)
    assert torch.equal(model.projectors[0](tokens), projected[0])


def inputs_seeded():
    torch.manual_seed(1)
    return inputs()


def test_the_alignment_pass_stops():
    """`project` runs the blocks up to the alignment depth and no further, nor the final layer."""
    model, ran = awake(), []
    for number, block in enumerate([*model.backbone.blocks, model.backbone.final_layer], 1):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    model.project(*inputs())
    assert ran == [1, 2]
    ran.clear()
    model(*inputs())
    assert ran == [1, 2, 3, 4]


@pytest.mark.parametrize("encoder_depth", [0, 4])
def test_alignment_beyond_the_model(encoder_depth):
    """Refused with both numbers."""
    with refused(UserError, f"encoder_depth {encoder_depth}", "depth is 3", "1 to 3"):
        Denoiser(SiT(SMALL), DIMS, encoder_depth, 16)


def test_without_teachers_it_is_plain_sit():
    """No projector, an empty list, and the SiT that was handed in."""
    sit = SiT(SMALL)
    model = Denoiser(sit, [], 2, 16)
    assert model.backbone is sit and model(*inputs())[1] == [] and model.project(*inputs()) == []
    assert {name.removeprefix("backbone.") for name, _ in model.named_parameters()} == set(dict(sit.named_parameters()))


def test_a_gradient_reaches_every_parameter():
    """In one forward pass, as data parallelism requires; the position table is none of them."""
    model = awake().train()
    velocity, projected = model(*inputs(), torch.tensor([True, False, False, False]))
    (velocity.square().mean() + sum(tokens.square().mean() for tokens in projected)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_projector_is_the_papers():
    """Three linear layers with SiLU between them: 8,131,328 numbers from XL to a 768-wide teacher."""
    with torch.device("meta"):
        model = Denoiser(SiT(SiTConfig.preset("SiT-XL/2", depth=1)), [768], 1, 2048)
    assert sum(parameter.numel() for parameter in model.projectors.parameters()) == 8_131_328


@pytest.mark.parametrize("training", [True, False])
def test_each_block_compiles_as_a_whole(training, unchecked):
    """Regional compilation, in place: no graph break inside a part, same names, same values and gradients."""
    plain, compiled = awake(), awake()
    compiled.load_state_dict(plain.state_dict())
    for part in compiled.repeated_parts():
        part.compile(backend="eager", fullgraph=True)
    drop, results = torch.tensor([True, False, False, True]), []
    for model in (plain.train(training), compiled.train(training)):
        velocity, projected = model(*inputs_seeded(), drop)
        (velocity.square().mean() + projected[1].square().mean()).backward()
        results.append((velocity, projected[0], model.backbone.blocks[0].attn.qkv.weight.grad))
    assert list(plain.state_dict()) == list(compiled.state_dict())
    for one, other in zip(*results):
        torch.testing.assert_close(one, other)
