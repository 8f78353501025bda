"""What stopping the U-Net saves: time and memory of the encoder against whole towers, on random Stable Diffusion 1.5.

    python scripts/bench_difflmm.py [--resolution 384] [--up-block 1] [--repeat 3]

The encoder keeps the U-Net until the wanted block and the VAE's encoder. Beside it: a whole U-Net with a hook that
reads the same block and lets the rest be computed, and a whole VAE. Both have the same weights, and must give the same
features (1e-5).
"""

import argparse
import time
from collections.abc import Callable

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from peak_memory import peak_bytes

from difflmm.encoder import DiffusionEncoder
from difflmm.encoder_config import DiffusionEncoderConfig

MEBIBYTE = 2**20
# https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5, configs of unet, vae and scheduler.
UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
             "num_train_timesteps": 1000}  # fmt: skip


def n_bytes(*modules: torch.nn.Module) -> int:
    return sum(p.nbytes for module in modules for p in module.parameters())


def best_seconds(functions: list[Callable[[], object]], repeat: int) -> list[float]:
    """The shortest of some runs of each, in turn, after one that warms up."""
    taken = []
    for _ in range(repeat + 1):
        row = []
        for function in functions:
            start = time.perf_counter()
            function()
            row.append(time.perf_counter() - start)
        taken.append(row)
    return [min(column) for column in zip(*taken[1:], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=384)
    parser.add_argument("--up-block", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    unet, vae = UNet2DConditionModel(**UNET).eval(), AutoencoderKL(**VAE).eval()
    whole_bytes = n_bytes(unet, vae)
    config = DiffusionEncoderConfig(
        unet_config=dict(unet.config), vae_config=dict(vae.config), scheduler_config=SCHEDULER, concat_clip=False,
        implicit_caption=False, resolution=arguments.resolution, up_block=arguments.up_block,
    )  # fmt: skip
    encoder = DiffusionEncoder(config).eval()
    for part, whole in ((encoder.unet, unet), (encoder.vae, vae)):
        kept = part.state_dict().keys()
        part.load_state_dict({k: v for k, v in whole.state_dict().items() if k in kept}, assign=True)
    pixels = torch.rand(1, 3, arguments.resolution, arguments.resolution) * 2 - 1
    found: list[torch.Tensor] = []
    unet.up_blocks[arguments.up_block].register_forward_hook(lambda module, given, output: found.append(output))

    with torch.inference_mode():
        encoded = encoder.encode(pixels)
        caption = encoder.null_caption[None]
        latents = encoded.noisy_latents[:, 0]
        ways: list[Callable[[], object]] = [
            lambda: encoder.features(encoded),
            lambda: unet(latents, config.timestep, encoder_hidden_states=caption),
            lambda: encoder.encode(pixels),
        ]
        stopped, full, encoding = best_seconds(ways, arguments.repeat)
        peaks = [peak_bytes(way, "cpu") / MEBIBYTE for way in ways]
        difference = (encoder.features(encoded)[0] - found[0]).abs().max().item()
    assert difference <= 1e-5, difference
    kept = n_bytes(encoder.unet, encoder.vae)
    print(f"{arguments.resolution} px, up-block {arguments.up_block}, {torch.get_num_threads()} threads, float32")
    print(f"weights          {kept / MEBIBYTE:7.0f} of {whole_bytes / MEBIBYTE:.0f} MiB")
    print(f"one U-Net pass   {stopped:7.2f} of {full:.2f} s ({full / stopped:.2f} times as fast)")
    print(f"the VAE's encoder {encoding:6.2f} s")
    print(f"memory above the weights: {peaks[0]:.0f} of {peaks[1]:.0f} MiB, the VAE's encoder {peaks[2]:.0f} MiB")
    print(f"largest difference between the features {difference:.1e}")


if __name__ == "__main__":
    main()
