"""How many layers of the pretrained decoder are worth their bytes and time? Held-out captions after a short training.

    python scripts/embedded/study_decoder.py --parts work/parts --keep 8 12 16 24 30 --json work/decoder.json

Layers leave by block influence (1 - cosine between a layer's input and its output, mean over the captions' tokens,
Men et al. 2024, arXiv 2403.03853): those that change least go first. What stays is trained on captions of photographs
that are not here and judged on those of the photographs for choosing: nats per token, without an image.
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np
import torch
from caption_data import caption_texts, load_captions, question_texts
from lmm_decoder import small_decoder
from lmm_model import AFTER, BEFORE, IMAGE, QUESTIONS
from split import default_data_dir, kept_out
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

IGNORE = -100


def rows_of(tokenizer: PreTrainedTokenizerFast, captions: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Prompt and caption: ids, attention mask, and labels (the caption and its end), int64 [B, T]."""
    prompt = tokenizer.encode(BEFORE + AFTER.format(QUESTIONS[0]), add_special_tokens=False)
    answers = [[*tokenizer.encode(c, add_special_tokens=False), tokenizer.eos_token_id] for c in captions]
    width = len(prompt) + max(map(len, answers))
    ids, mask = torch.zeros(len(answers), width, dtype=torch.long), torch.zeros(len(answers), width, dtype=torch.long)
    labels = torch.full_like(ids, IGNORE)
    for row, answer in enumerate(answers):
        n = len(prompt) + len(answer)
        ids[row, :n], mask[row, :n] = torch.tensor(prompt + answer), 1
        labels[row, len(prompt) : n] = torch.tensor(answer)
    return ids, mask, labels


def nats(model: LlamaForCausalLM, rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Of each label [n]."""
    ids, mask, labels = rows
    hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    keep = wanted != IGNORE
    return F.cross_entropy(model.lm_head(hidden[keep]), wanted[keep], reduction="none")


@torch.no_grad()
def judged(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, captions: list[str]) -> float:
    parts = [nats(model, rows_of(tokenizer, captions[i : i + 32])) for i in range(0, len(captions), 32)]
    return float(torch.cat(parts).mean())


@torch.no_grad()
def influences(model: LlamaForCausalLM, rows: tuple[Tensor, Tensor, Tensor]) -> list[float]:
    states = model(input_ids=rows[0], attention_mask=rows[1], output_hidden_states=True).hidden_states
    keep = rows[2] != IGNORE
    return [float(1 - F.cosine_similarity(a[keep], b[keep], dim=-1).mean()) for a, b in itertools.pairwise(states)]


def study(args: argparse.Namespace) -> list[dict]:
    captions = load_captions(args.data)
    held_out = [text for image_id in kept_out(args.data)[0] for text in captions[image_id]]
    train = caption_texts(args.data)
    texts = train + question_texts(args.data) + [BEFORE + AFTER.format(q) for q in QUESTIONS]
    model, tokenizer = small_decoder(args.parts / "smollm2", texts, IMAGE)
    influence = influences(model, rows_of(tokenizer, held_out[:64]))
    print("influence", [round(x, 3) for x in influence], flush=True)
    # The last layer's output is normalised in `hidden_states` and so not comparable: it always stays.
    order = [len(influence) - 1, *sorted(range(len(influence) - 1), key=lambda i: -influence[i])]
    results = []
    for n in args.keep:
        layers = sorted(order[:n])
        model, _ = small_decoder(args.parts / "smollm2", texts, IMAGE, layers)
        before = judged(model, tokenizer, held_out)
        seconds = trained(args, model, tokenizer, train)
        after = judged(model.eval(), tokenizer, held_out)
        results.append({"layers": layers, "before": before, "after": after, "cpu_seconds": seconds})
        print(results[-1], flush=True)
    return results


def trained(
    args: argparse.Namespace, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> int:
    """Train in place; CPU seconds."""
    model.get_input_embeddings().requires_grad_(False)
    rng, started = np.random.default_rng(args.seed), time.process_time()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=args.lr, weight_decay=0.01)
    model.train()
    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1.0, (step + 1) / 10) * (1 - step / args.steps)
        batch = [texts[i] for i in rng.integers(len(texts), size=args.batch)]
        loss = nats(model, rows_of(tokenizer, batch)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return round(time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--parts", type=Path, required=True, help="folder that parts.py wrote")
    parser.add_argument("--keep", type=int, nargs="+", default=[8, 12, 16, 24, 30], help="numbers of layers")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = study(args)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
