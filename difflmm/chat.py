"""A conversation with a model about an image, line by line."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor, TextStreamer

from difflmm.data.images import ImageError, read_image

HELP = "/image PATH: look at another image, from the start. /reset: from the start. /quit: the end."


class Chat:
    """What was said so far, and the image that it is about. `seed`: of the diffusion encoder's noise."""

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        processor: LlavaProcessor,
        max_new_tokens: int = 512,
        seed: int = 0,
    ):
        self.model, self.processor, self.max_new_tokens, self.seed = model, processor, max_new_tokens, seed
        self.image: Any = None
        self.messages: list[dict[str, Any]] = []

    def look_at(self, path: Path) -> None:
        """Begins again, with another image. Raises ImageError if it cannot be read."""
        self.image = read_image(path)
        self.messages = []

    def ask(self, question: str, streamer: TextStreamer | None = None) -> str:
        """The answer, word by word to `streamer` as they come; greedy."""
        content: list[dict[str, str]] = [{"type": "text", "text": question}]
        if not self.messages and self.image is not None:
            content.insert(0, {"type": "image"})
        messages = [*self.messages, {"role": "user", "content": content}]
        inputs = self._inputs(messages)
        with torch.inference_mode():
            ids = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False, streamer=streamer)
        new = ids[0, inputs["input_ids"].shape[1] :]
        answer = self.processor.tokenizer.decode(new, skip_special_tokens=True).strip()
        said = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        self.messages = [*messages, said]
        return answer

    def _inputs(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        inputs = self.processor(images=self.image, text=text, add_special_tokens=False, return_tensors="pt")
        inputs = inputs.to(self.model.device, self.model.dtype)
        if self.image is not None and self.model.config.model_type == "difflmm":
            inputs["noise_seeds"] = torch.tensor([self.seed])
        return dict(inputs)


class Printer(TextStreamer):
    """Words to stdout as they come, without the space that an answer begins with."""

    def __init__(self, processor: LlavaProcessor):
        super().__init__(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.has_begun = False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """`text`: the words that are new."""
        text = text if self.has_begun else text.lstrip()
        self.has_begun = bool(self.has_begun or text)
        super().on_finalized_text(text, stream_end)


def converse(chat: Chat, lines: Iterable[str]) -> None:
    """Answers each of `lines` on stdout, and does what those that begin with "/" say; complaints go to stderr."""
    for line in lines:
        said = line.strip()
        command, _, argument = said.partition(" ")
        if command == "/quit":
            return
        if command == "/reset":
            chat.messages = []
        elif command == "/image":
            try:
                chat.look_at(Path(argument.strip()).expanduser())
            except ImageError as error:
                print(error, file=sys.stderr)
        elif said.startswith("/"):
            print(HELP, file=sys.stderr)
        elif said:
            chat.ask(said, Printer(chat.processor))
