"""What the diffusion encoder's untrained part makes of images, kept on disk so that it is made once.

One safetensors file for each image, `noisy_latents` [ensemble, c, h, w] and `clip_features` [cells, channels], named by
all that decides its content: the image's bytes, its noise, the image processor, and the VAE's and CLIP's weights. Any
number of processes and runs may share a folder.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from difflmm.encoder import DiffusionEncoder


class FeatureCache:
    """A folder of features. `made_with`: all but the image and its noise that decides them, see `fingerprint`."""

    def __init__(self, folder: Path, made_with: str):
        self.folder, self.made_with = folder, made_with

    def path(self, digest: str, seed: int) -> Path:
        """Where the features of an image (its SHA-256) with the noise of `seed` are."""
        key = hashlib.sha256(f"{self.made_with}:{digest}:{seed}".encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.safetensors"

    def read(self, digest: str, seed: int) -> dict[str, Tensor]:
        """`noisy_latents` [ensemble, c, h, w], `clip_features` [cells, channels]. ValueError: the file is damaged."""
        path = self.path(digest, seed)
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}): remove it, and it is made again.") from error

    def write(self, digest: str, seed: int, features: dict[str, Tensor]) -> None:
        """Keeps what `read` gives; the file is there when it is whole."""
        path = self.path(digest, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        os.close(handle)
        try:
            save_file(features, temporary)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def fingerprint(encoder: DiffusionEncoder, image_processor_json: str, precision: str) -> str:
    """SHA-256 of what features of an image depend on, besides its pixels and noise."""
    config = encoder.config.to_dict()
    names = ("vae_config", "scheduler_config", "clip_config", "resolution", "timestep", "ensemble_size")
    told = [{name: config[name] for name in names}, image_processor_json, precision]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    for part in (encoder.vae, encoder.clip):
        for name, weight in sorted(part.state_dict().items()) if part is not None else ():
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@torch.no_grad()
def fill(
    cache: FeatureCache,
    images: list[tuple[Path, str, int]],
    pixels_of: Callable[[Path], Tensor],
    encoder: DiffusionEncoder,
    autocast: AbstractContextManager,
    batch_size: int,
    n_workers: int,
) -> None:
    """Makes the features of those `images` (path, SHA-256, seed) that have none yet. `pixels_of`: an image's input,
    float32 [3, side, side]. `autocast`: what the encoder computes in."""
    todo = [each for each in images if not cache.path(*each[1:]).is_file()]
    loader = DataLoader(_Pixels(todo, pixels_of), batch_size, num_workers=n_workers)
    batches = tqdm(loader, "Keeping features", leave=False)
    for start, pixels in zip(range(0, len(todo), batch_size), batches, strict=True):
        batch = todo[start : start + batch_size]
        with autocast:
            found = encoder.encode(
                pixels.to(encoder.device, encoder.dtype), torch.tensor([seed for _, _, seed in batch])
            )
        kept = {name: of for name, of in found._asdict().items() if of is not None}
        for i, (_, digest, seed) in enumerate(batch):
            cache.write(digest, seed, {name: of[i].to(encoder.dtype).cpu().contiguous() for name, of in kept.items()})


class _Pixels(torch.utils.data.Dataset):
    def __init__(self, images: list[tuple[Path, str, int]], pixels_of: Callable[[Path], Tensor]):
        self.images, self.pixels_of = images, pixels_of

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.pixels_of(self.images[i][0])
