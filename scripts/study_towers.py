"""The towers of scripts/study_difflmm.py: a small CLIP, VAE and U-Net, trained on captioned photographs."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from caption_data import clean_caption, mirrored
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from split import kept_out, manifest
from torch import Tensor
from torch.nn import functional as F
from tqdm import trange
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from difflmm.data.images import read_image
from difflmm.processor import square_image_processor

SIDE, PATCH = 128, 16  # of the square photograph and of CLIP's patch, in pixels: 8 x 8 cells, as the U-Net's up-block 1
TEXT_WIDTH, TEXT_LENGTH = 128, 32  # of CLIP's text part, to which the U-Net attends
N_NOISE_STEPS = 1000


@dataclass(frozen=True)
class Photo:
    image_id: int
    file: str  # below data/coco
    captions: tuple[str, ...]

    @property
    def small_file(self) -> str:
        """Of its small copy, below the folder of those."""
        return str(Path(self.file).with_suffix(".png"))


def captioned_photos(data_dir: Path) -> dict[str, list[Photo]]:
    """COCO's photographs that have captions, by "train", "choose" and "figures" (the last two are kept out)."""
    captions: dict[int, list[str]] = {}
    for part in ("val2017", "train2017"):
        annotations = json.loads((data_dir / f"coco/annotations/captions_subset_{part}.json").read_text())[
            "annotations"
        ]
        for annotation in annotations:
            captions.setdefault(annotation["image_id"], []).append(clean_caption(annotation["caption"]))
    choose, figures = map(set, kept_out(data_dir))
    photos: dict[str, list[Photo]] = {"train": [], "choose": [], "figures": []}
    for row in manifest(data_dir):
        i = int(row["image_id"])
        part = "choose" if i in choose else "figures" if i in figures else "train"
        if i in captions:
            photos[part].append(Photo(i, row["file"], tuple(captions[i])))
    return photos


def read_squares(photos: Sequence[Photo], data_dir: Path) -> Tensor:
    """uint8 [n, 3, SIDE, SIDE], padded to a square as the encoder pads."""
    process = square_image_processor(SIDE)
    squares = torch.empty((len(photos), 3, SIDE, SIDE), dtype=torch.uint8)
    for i in trange(len(photos), desc="Reading photographs", leave=False):
        pixels = process(read_image(data_dir / "coco" / photos[i].file), return_tensors="pt")["pixel_values"][0]
        squares[i] = ((pixels + 1) * 127.5).round()
    return squares


def optimise(parameters: Any, loss_of_batch: Callable[[], Tensor], n_steps: int, rate: float, label: str) -> float:
    """AdamW on a cosine with warm-up; returns the mean loss of the last tenth of the steps."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(n_steps, 2), pct_start=0.05)
    losses = []
    for _ in (bar := trange(n_steps, desc=label)):
        loss = loss_of_batch()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{losses[-1]:.3g}")
    return float(np.mean(losses[-max(1, n_steps // 10) :]))


class TowerTrainer:
    """Trains a tower at a time into `folder`; what is there is taken as it is. `tokenizer`: the LLM's."""

    def __init__(self, photos: dict[str, list[Photo]], data_dir: Path, folder: Path, tokenizer: Any, seed: int = 0):
        self.photos, self.data_dir, self.folder, self.tokenizer = photos, data_dir, folder, tokenizer
        self.seed = seed

    @cached_property
    def squares(self) -> dict[str, Tensor]:
        return {part: read_squares(self.photos[part], self.data_dir) for part in ("train", "choose")}

    def train(self, name: str, n_steps: int, batch_size: int) -> dict[str, Any]:
        """`name`: clip, vae or unet, in this order; the later ones use the earlier ones. Returns what it came to."""
        figures = self.folder / name / "figures.json"
        if not figures.is_file():
            self.rng = np.random.default_rng(self.seed)  # a tower's own: a break between towers leaves no trace
            torch.manual_seed(self.seed)
            found = getattr(self, f"_{name}")(self.folder / f"{name}.part", n_steps, batch_size)
            told = {"steps": n_steps, "batch_size": batch_size} | found
            (self.folder / f"{name}.part/figures.json").write_text(json.dumps(told))
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / f"{name}.part").replace(self.folder / name)
        return json.loads(figures.read_text())

    # ------------------------------------------------------------------------------------------------ batches

    def _draw(self, batch_size: int) -> tuple[list[int], bool]:
        """Photographs of a batch, and whether they are mirrored."""
        n = len(self.squares["train"])
        return self.rng.choice(n, batch_size, replace=batch_size > n).tolist(), bool(self.rng.integers(2))

    def _cropped(self, which: list[int], flip: bool, side: int) -> Tensor:
        """[-1, 1], float [B, 3, side, side]: the same square window of each photograph."""
        y, x = self.rng.integers(SIDE - side + 1, size=2)
        pixels = self.squares["train"][which, :, y : y + side, x : x + side].float() / 127.5 - 1
        return pixels.flip(3) if flip else pixels

    def _captions(self, which: list[int], flip: bool) -> list[str]:
        chosen = [self.rng.choice(self.photos["train"][i].captions) for i in which]
        return [mirrored(caption) if flip else caption for caption in chosen]

    def _tokens(self, captions: list[str]) -> dict[str, Tensor]:
        """Captions as CLIP's text part takes them. The end, whose feature is the caption's, has an id of its own behind
        the LLM's: CLIP looks for the highest id."""
        end = len(self.tokenizer)
        ids = self.tokenizer(captions, add_special_tokens=False)["input_ids"]
        rows = [torch.tensor([*row[: TEXT_LENGTH - 1], end]) for row in ids]
        rows[0] = F.pad(rows[0], (0, TEXT_LENGTH - len(rows[0])))  # all batches are as long
        return {"input_ids": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)}

    # ------------------------------------------------------------------------------------------------- towers

    def _clip(self, folder: Path, n_steps: int, batch_size: int) -> dict[str, float]:
        """Contrastive: which of the batch's captions is whose."""
        end = len(self.tokenizer)
        layers = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4}
        text = layers | {"num_hidden_layers": 2, "vocab_size": end + 1, "max_position_embeddings": TEXT_LENGTH}
        text |= {"bos_token_id": end, "eos_token_id": end, "pad_token_id": 0, "hidden_size": TEXT_WIDTH}
        vision = layers | {"num_hidden_layers": 4, "image_size": SIDE, "patch_size": PATCH}
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))

        def loss() -> Tensor:
            which, flip = self._draw(batch_size)
            crop = self._cropped(which, flip, int(self.rng.integers(SIDE * 3 // 4, SIDE + 1)))
            pixels = _for_clip(F.interpolate(crop, (SIDE, SIDE), mode="bilinear"))
            return model(pixel_values=pixels, **self._tokens(self._captions(which, flip)), return_loss=True).loss

        last = optimise(model.parameters(), loss, n_steps, 1e-3, "CLIP")
        model.save_pretrained(folder)
        CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(
            folder
        )
        return {"loss": last, "choose_recall_at_5": self._recall(model.eval())}

    @torch.no_grad()
    def _recall(self, model: CLIPModel) -> float:
        """How often a kept-out photograph's first caption is among the 5 nearest of theirs."""
        pixels = _for_clip(self.squares["choose"].float() / 127.5 - 1)
        tokens = self._tokens([photo.captions[0] for photo in self.photos["choose"]])
        scores = model(pixel_values=pixels, **tokens).logits_per_image
        return (scores.topk(5).indices == torch.arange(len(pixels))[:, None]).any(1).float().mean().item()

    def _vae(self, folder: Path, n_steps: int, batch_size: int) -> dict[str, float]:
        """To reconstruct windows of a quarter of the photograph."""
        model = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=(16, 32, 64, 64), layers_per_block=1, norm_num_groups=8, latent_channels=4,
        )  # fmt: skip

        def loss() -> Tensor:
            pixels = self._cropped(*self._draw(batch_size), SIDE // 2)
            posterior = model.encode(pixels).latent_dist
            return F.l1_loss(model.decode(posterior.sample()).sample, pixels) + 1e-6 * posterior.kl().mean()

        last = optimise(model.parameters(), loss, n_steps, 2e-3, "VAE")
        with torch.no_grad():
            pixels = self.squares["choose"].float() / 127.5 - 1
            mean = model.encode(pixels).latent_dist.mean
            error = F.mse_loss(model.decode(mean).sample.clamp(-1, 1), pixels) / 4  # of values in [0, 1]
            model.register_to_config(scaling_factor=1 / mean.std().item())
        model.save_pretrained(folder)
        return {"loss": last, "choose_psnr_db": -10 * error.log10().item()}

    def _unet(self, folder: Path, n_steps: int, batch_size: int) -> dict[str, float]:
        """To predict the noise, told the caption by CLIP's text part; one caption in ten is empty, as for SD."""
        clip = CLIPModel.from_pretrained(self.folder / "clip").eval().requires_grad_(False)
        model = UNet2DConditionModel(
            sample_size=SIDE // 8, block_out_channels=(32, 64, 128, 128), layers_per_block=1, norm_num_groups=8,
            attention_head_dim=4, cross_attention_dim=TEXT_WIDTH,
        )  # fmt: skip
        scheduler = DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            num_train_timesteps=N_NOISE_STEPS,
        )  # fmt: skip
        latents = {part: self._latents(squares) for part, squares in self.squares.items()}

        def denoising_loss(clean: Tensor, captions: list[str], steps: Tensor) -> Tensor:
            noise = torch.randn_like(clean)
            text = clip.text_model(**self._tokens(captions)).last_hidden_state
            noisy = scheduler.add_noise(clean, noise, steps)
            return F.mse_loss(model(noisy, steps, encoder_hidden_states=text).sample, noise)

        def loss() -> Tensor:
            which, _ = self._draw(batch_size)
            captions = [text if self.rng.random() > 0.1 else "" for text in self._captions(which, flip=False)]
            steps = torch.from_numpy(self.rng.integers(N_NOISE_STEPS, size=batch_size))
            return denoising_loss(latents["train"][which], captions, steps)

        last = optimise(model.parameters(), loss, n_steps, 1e-3, "U-Net")
        with torch.no_grad():
            first = [photo.captions[0] for photo in self.photos["choose"]]
            steps = torch.linspace(0, N_NOISE_STEPS - 1, len(first)).long()
            error = denoising_loss(latents["choose"], first, steps).item()
        model.save_pretrained(folder)
        scheduler.save_pretrained(folder.parent / "scheduler")
        return {"loss": last, "choose_loss": error}

    @torch.no_grad()
    def _latents(self, squares: Tensor) -> Tensor:
        vae = AutoencoderKL.from_pretrained(self.folder / "vae").eval()
        means = [vae.encode(of.float() / 127.5 - 1).latent_dist.mean for of in squares.split(64)]
        return torch.cat(means) * vae.config.scaling_factor


def _for_clip(pixels: Tensor) -> Tensor:
    """[-1, 1] to CLIP's statistics."""
    mean, std = (pixels.new_tensor(of)[:, None, None] for of in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return ((pixels + 1) / 2 - mean) / std
