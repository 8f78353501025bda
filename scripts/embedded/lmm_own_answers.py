"""The model's own answers to the training photographs, and batches that teach the attention on them.

The row that predicts a word of a human caption does not know the word yet; in the model's own answer it nearly does,
and its own answers are where the attention is read.
"""

import cv2
import numpy as np
import torch
from caption_data import Photo, augmented, mirrored
from lmm_batches import Batch, PhotoBatches, Told, Words, batch_of, prompt_ids
from lmm_model import N_CELLS, QUESTIONS, SIDE, to_pixels
from transformers import LlavaForConditionalGeneration

LONGEST = 24  # tokens of an answer that is trained on


@torch.no_grad()
def own_answers(model: LlavaForConditionalGeneration, words: Words, photos: list[Photo]) -> list[str]:
    """What the model says of each photograph, greedily."""
    before, after = prompt_ids(words.tokenizer, QUESTIONS[0])
    prompt = [*before, *[model.config.image_token_id] * N_CELLS, *after]
    answers: list[str] = []
    model.eval().set_attn_implementation({"text_config": "sdpa"})
    for start in range(0, len(photos), 32):
        pictures = np.stack([cv2.resize(photo.pixels, (SIDE, SIDE)) for photo in photos[start : start + 32]])
        ids = torch.tensor([prompt] * len(pictures), device=model.device)
        written = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=to_pixels(pictures).to(model.device),
            do_sample=False,
            max_new_tokens=LONGEST,
        )
        answers += words.tokenizer.batch_decode(written[:, len(prompt) :], skip_special_tokens=True)
    model.set_attn_implementation({"text_config": "aas_recorded"})
    return [answer.strip() for answer in answers]


class OwnBatches(PhotoBatches):
    """Batches of single photographs, each with what people say of it and the model's own answer.

    The answer's words are for pointing only (no labels): to write, the model learns from people.
    """

    def __init__(self, photos: list[Photo], answers: list[str], words: Words, n_photos: int, seed: int):
        super().__init__(photos, words, 0, n_photos, seed)
        self.per_step = {True: 0, False: n_photos}
        self.answers = answers

    def _own(self) -> tuple[np.ndarray, list[Told], np.ndarray]:
        i = self._next(captioned=False)
        picture, flipped = augmented(self.photos[i].pixels, SIDE, self.rng)
        answer = mirrored(self.answers[i]) if flipped else self.answers[i]
        told = [*self._told(self.photos[i], flipped), Told(QUESTIONS[0], answer, is_label=False)]
        return picture, told, np.stack([self.targets[i]] * 4)

    def __call__(self, step: int) -> Batch:
        self.start(step)
        return batch_of([self._own() for _ in range(self.n_single)], self.words, 0)
