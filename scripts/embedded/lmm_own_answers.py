"""The model's own answers to the training photographs, and batches that teach the attention on them.

The row that predicts a word of a human caption does not know the word yet; in the model's own answer it nearly does,
and its own answers are where the attention is read.
"""

import cv2
import numpy as np
import torch
from caption_data import Photo, augmented, mirrored
from lmm_batches import IGNORE, Batch, PhotoBatches, Words, collate, pack, prompt_ids
from lmm_model import N_CELLS, QUESTIONS, SIDE, to_pixels
from transformers import LlavaForConditionalGeneration

LONGEST = 24  # tokens of an answer that is trained on
N_CAPTIONS = 3  # of a photograph at once


@torch.no_grad()
def own_answers(model: LlavaForConditionalGeneration, words: Words, photos: list[Photo]) -> list[str]:
    """What the model says of each photograph, greedily."""
    before, after = prompt_ids(words.tokenizer, QUESTIONS[1])
    prompt = [*before, *[model.config.image_token_id] * N_CELLS, *after]
    answers: list[str] = []
    model.eval().set_attn_implementation({"text_config": "sdpa"})
    for start in range(0, len(photos), 32):
        pictures = np.stack([cv2.resize(photo.pixels, (SIDE, SIDE)) for photo in photos[start : start + 32]])
        ids = torch.tensor([prompt] * len(pictures))
        with torch.autocast("cpu", torch.bfloat16):
            written = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=to_pixels(pictures),
                do_sample=False,
                max_new_tokens=LONGEST,
            )
        answers += words.tokenizer.batch_decode(written[:, len(prompt) :], skip_special_tokens=True)
    model.set_attn_implementation({"text_config": "aas_recorded"})
    return [answer.strip() for answer in answers]


class OwnBatches(PhotoBatches):
    """Batches of single photographs, each with some of its captions and the model's own answer.

    The answer's words are for pointing only (no labels): to write, the model learns from people.
    """

    def __init__(self, photos: list[Photo], answers: list[str], words: Words, n_photos: int, seed: int):
        super().__init__(photos, words, 0, n_photos, seed)
        self.per_step = {True: 0, False: n_photos}
        self.answers = answers

    def _row(self, question: str, lower: bool) -> tuple[np.ndarray, dict]:
        i = self._next(captioned=False)
        picture, flipped = augmented(self.photos[i].pixels, SIDE, self.rng)
        captions = self._captions(self.photos[i], flipped, N_CAPTIONS)
        answer = mirrored(self.answers[i]) if flipped else self.answers[i]
        row = pack([(text, -1) for text in (*captions, answer)], self.words, question, lower, with_image=True)
        labelled = zip(row["labels"], row["segment"], strict=True)
        row["labels"] = [label if segment <= len(captions) else IGNORE for label, segment in labelled]
        return picture, row

    def __call__(self, step: int) -> Batch:
        self.start(step)
        question, lower = str(self.rng.choice(QUESTIONS)), bool(self.rng.random() < 0.15)
        samples = [self._row(question, lower) for _ in range(self.n_single)]
        return collate(
            [row for _, row in samples],
            pixels=to_pixels(np.stack([picture for picture, _ in samples])),
            image_at=self.image_at,
            targets=torch.from_numpy(np.zeros((len(samples), 4, len(self.words.concepts)), np.float32)),
            n_mosaics=0,
        )
