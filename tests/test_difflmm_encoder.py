"""The diffusion encoder: against whole towers with a hook in a whole U-Net, and against itself in other batches."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from difflmm.encoder import DiffusionEncoder
from difflmm.encoder_config import DiffusionEncoderConfig
from tests.tiny import difflmm as tiny

SEEDS = torch.tensor([7, 8, 7])
CLIP_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
CLIP_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


def encoder(unet=None, **changes) -> DiffusionEncoder:
    """Its towers hold the weights of the whole ones."""
    unet = unet or tiny.unet()
    found = DiffusionEncoder(tiny.encoder_config(unet_config=dict(unet.config), **changes)).eval()
    for part, whole in ((found.unet, unet), (found.vae, tiny.vae()), (found.clip, tiny.clip())):
        if part is not None:
            part.load_state_dict({k: v for k, v in whole.state_dict().items() if k in part.state_dict()})
    if changes.get("implicit_caption", True):
        torch.nn.init.normal_(found.captioner.positions, std=0.1)
        for linear in (found.captioner.linear_1, found.captioner.linear_2):
            torch.nn.init.normal_(linear.weight, std=0.1)
            torch.nn.init.normal_(linear.bias, std=0.1)
    else:
        torch.nn.init.normal_(found.null_caption)
    return found


def photos(n: int = 3, side: int = tiny.SIDE) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def whole_clip_features(pixels: Tensor, grid_side: int) -> Tensor:
    """Stable Diffusion's grid at block 1 is CLIP's at 7/8 of the size."""
    small = F.interpolate(pixels, size=(14 * grid_side,) * 2, mode="bilinear", align_corners=False)
    normalised = (small * 0.5 + 0.5 - CLIP_MEAN) / CLIP_STD
    options = {"interpolate_pos_encoding": True, "output_hidden_states": True}
    return tiny.clip()(normalised, **options).hidden_states[-2][:, 1:]


@torch.no_grad()
def hooked(encoder: DiffusionEncoder, unet, pixels: Tensor, seed: int) -> Tensor:
    """One image through all of a VAE and a U-Net, whose up-block a hook listens to."""
    config, generator = encoder.config, torch.Generator().manual_seed(seed)
    latents = tiny.vae().encode(pixels.expand(config.ensemble_size, -1, -1, -1)).latent_dist.sample(generator) * 0.18215
    noise = torch.randn(latents.shape, generator=generator)
    latents = tiny.scheduler().add_noise(latents, noise, torch.tensor([config.timestep]))
    if config.implicit_caption:
        captioner = encoder.captioner
        clip_features = whole_clip_features(pixels, config.grid_side)
        hidden = F.gelu(clip_features @ captioner.linear_1.weight.T + captioner.linear_1.bias)
        caption = hidden @ captioner.linear_2.weight.T + captioner.linear_2.bias + captioner.positions
    else:
        caption = encoder.null_caption[None]
    outputs: list[Tensor] = []
    unet.up_blocks[config.up_block].register_forward_hook(lambda module, arguments, output: outputs.append(output))
    unet(latents, config.timestep, encoder_hidden_states=caption.expand(len(latents), -1, -1))
    return outputs[0].mean(0, keepdim=True)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"up_block": 0, "timestep": 0},
        {"up_block": 2, "timestep": 999, "ensemble_size": 3},
        {"up_block": 3, "implicit_caption": False},
    ],
    ids=str,
)
def test_features_equal_those_of_a_whole_unet(changes):
    ours = encoder(**changes)
    pixels = photos(1)
    with torch.no_grad():
        unet_features, clip_features = ours(pixels, torch.tensor([7]))
    expected = hooked(ours, tiny.unet(), pixels, 7)
    side = ours.config.grid_side
    assert unet_features.shape == (1, ours.config.unet_channels, side, side)
    torch.testing.assert_close(unet_features, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(clip_features, whole_clip_features(pixels, side), atol=1e-5, rtol=0)


def test_a_unet_like_stable_diffusion_2():
    """Another text width, linear projections, heads by block; and another resolution, where CLIP's positions are
    interpolated."""
    unet = tiny.unet(cross_attention_dim=24, use_linear_projection=True, attention_head_dim=(2, 4, 4, 4))
    ours = encoder(unet, implicit_caption=False, concat_clip=False, clip_config=None, resolution=192)
    assert ours.clip is None and ours.config.hidden_size == ours.config.unet_channels
    with torch.no_grad():
        unet_features, clip_features = ours(photos(1, 192), torch.tensor([7]))
    assert clip_features is None
    torch.testing.assert_close(unet_features, hooked(ours, unet, photos(1, 192), 7), atol=1e-5, rtol=0)
    with torch.no_grad():
        unet_features, clip_features = encoder(resolution=192, positions=False, implicit_caption=False)(photos(1, 192))
    assert unet_features.shape[-1] == 12 and clip_features.shape == (1, 144, 24)


@pytest.mark.parametrize("ensemble_size", [1, 2])
def test_an_image_has_the_same_features_in_any_batch(ensemble_size):
    ours, pixels = encoder(ensemble_size=ensemble_size), photos()
    with torch.no_grad():
        together, clip_together = ours(pixels, SEEDS)
        for i in range(3):
            alone, clip_alone = ours(pixels[i : i + 1], SEEDS[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)
            torch.testing.assert_close(clip_together[i : i + 1], clip_alone, atol=1e-5, rtol=0)
        one = pixels[:1].expand(3, -1, -1, -1)
        same = ours(one, SEEDS)[0]
        default = ours(one)[0]
    assert not torch.allclose(same[0], same[1]), "another seed, other noise"
    torch.testing.assert_close(same[0], same[2], atol=1e-5, rtol=0)
    torch.testing.assert_close(default[0], default[1], atol=1e-5, rtol=0)


def test_nothing_behind_the_wanted_block_is_kept():
    names = encoder(up_block=1).state_dict()
    assert not [name for name in names if name.startswith(("vae.decoder", "vae.post_quant", "unet.conv_out"))]
    assert {name.split(".")[2] for name in names if name.startswith("unet.up_blocks.")} == {"0", "1"}
    assert not [name for name in names if "conv_norm_out" in name and name.startswith("unet")]


def test_weights_are_channels_last_once_it_has_run():
    ours = encoder()
    ours(photos(1))
    assert ours.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert ours.vae.encoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_gradients_reach_the_captioner_only():
    ours = encoder().requires_grad_(False)
    ours.captioner.requires_grad_(True)
    unet_features, _ = ours(photos(1))
    unet_features.square().sum().backward()
    assert {name for name, p in ours.named_parameters() if p.grad is not None} == {
        f"captioner.{name}" for name in ("linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias",
                                         "positions")
    }  # fmt: skip
    assert all(p.grad.abs().max() > 0 for p in ours.captioner.parameters())


def test_what_was_encoded_can_be_kept():
    ours, pixels = encoder(), photos(2)
    encoded = ours.encode(pixels, SEEDS[:2])
    assert not encoded.noisy_latents.requires_grad and encoded.noisy_latents.shape == (2, 1, 4, 16, 16)
    torch.testing.assert_close(ours.features(encoded)[0], ours(pixels, SEEDS[:2])[0], atol=0, rtol=0)


def test_bfloat16():
    ours = encoder()
    with torch.no_grad():
        expected, _ = ours(photos(2), SEEDS[:2])
        rounded, _ = ours.bfloat16()(photos(2).bfloat16(), SEEDS[:2])
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - expected).norm() <= 0.05 * expected.norm()


def test_it_is_built_without_weights():
    with torch.device("meta"):
        ours = DiffusionEncoder(tiny.encoder_config())
    assert {p.device.type for p in ours.parameters()} == {"meta"}
    assert ours.scheduler.alphas_cumprod.device.type == "cpu"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 100}, "resolution 100 is not a multiple of 64"),
        ({"resolution": 0}, "resolution 0 is not a multiple of 64"),
        ({"up_block": 4}, "up_block 4: the U-Net has 4"),
        ({"timestep": 1000}, "timestep 1000: the scheduler has 1000"),
        ({"ensemble_size": 0}, "ensemble_size 0"),
        ({"clip_config": None}, "need a CLIP vision tower"),
        ({"unet_config": {**tiny.unet().config, "addition_embed_type": "text_time"}}, "Stable Diffusion XL"),
    ],
)
def test_what_cannot_be_built(changes, message):
    with pytest.raises(ValueError, match=message):
        DiffusionEncoder(tiny.encoder_config(**changes))


def test_an_image_of_another_size():
    with pytest.raises(ValueError, match="192 x 128 pixels, the encoder takes 128 x 128"):
        encoder()(torch.zeros(1, 3, 128, 192))


def test_patch_sizes():
    sizes = [tiny.encoder_config(up_block=i).patch_size for i in range(4)]
    assert sizes == [32, 16, 8, 8]
    config = DiffusionEncoderConfig(unet_config={"block_out_channels": [320, 640, 1280, 1280]},
                                    vae_config={"block_out_channels": [128, 256, 512, 512]})  # fmt: skip
    assert (config.grid_side, config.unet_channels) == (24, 1280), "Stable Diffusion 1.5 at 384 pixels"
