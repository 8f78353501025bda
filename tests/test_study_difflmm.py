"""scripts/study_difflmm.py: its figures' arithmetic, and all of it in tiny numbers."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("peft")
sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import study_difflmm
from study_judge import QUESTION, Bootstrap, summarise
from study_towers import captioned_photos

from difflmm.checkpoint import load_checkpoint
from difflmm.data.images import read_image


def case(image_id: int, right: bool, area: float = 0.1) -> dict:
    return {"image_id": image_id, "area": area, "hit": dict.fromkeys(("attention", "raw", "centre", "random"), right)}


def result(*rights: bool) -> dict:
    cases = [case(i, right) for i, right in enumerate(rights)]
    losses = [(i, 2.0 + right, 1.0) for i, right in enumerate(rights)]
    return {"given": cases, "own": cases, "loss": losses, "loss of another": [(i, 4.0, 1.0) for i, *_ in losses]}


def test_intervals_are_over_photographs():
    """Against a bootstrap written out: whole photographs are drawn, however many phrases they have."""
    rng = np.random.default_rng(1)
    rows = [(int(i), float(rng.random() < 0.2 + 0.6 * (i % 2)), 1.0) for i in rng.integers(40, size=300)]
    found = Bootstrap(range(40))(rows)
    assert found["mean"] == pytest.approx(np.mean([right for _, right, _ in rows]))
    means = []
    for _ in range(4000):
        drawn = rng.integers(40, size=40)
        of_drawn = [right for photo in drawn for i, right, _ in rows if i == photo]
        means.append(np.mean(of_drawn))
    assert [found["low"], found["high"]] == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.02)


def test_differences_are_paired():
    rng = np.random.default_rng(2)
    rows = [(i, float(rng.random()), 1.0) for i in range(30)]
    better = [(i, value + 0.25, n) for i, value, n in rows]
    assert Bootstrap(range(30))(better, rows) == pytest.approx({"mean": 0.25, "low": 0.25, "high": 0.25})


def test_arms_are_summed_over_seeds():
    figures = summarise({"a": [result(True, False), result(False, False)], "b": [result(True, True)]}, [0, 1])
    assert figures["a"]["given, attention"]["mean"] == 0.25
    assert figures["a"]["given, attention"]["seeds"] == [0.5, 0.0]
    assert figures["a"]["worth of the picture"]["mean"] == pytest.approx(4 - 2.25)
    assert figures["b less a"]["own, attention"]["mean"] == 0.75


def test_quick_study(shared_dir, tmp_path, monkeypatch):
    """Everything once; a second run makes nothing again and says the same; a loss is what the model says by itself."""
    data, out = shared_dir / "data", tmp_path / "found.json"
    arguments = ["--quick", "--data", str(data), "--work", str(tmp_path), "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["study_difflmm.py", *arguments])
    study_difflmm.main()
    first = json.loads(out.read_text())
    assert set(first["figures"]) == {"clip", "difflmm", "difflmm less clip"}
    assert first["figures"]["clip"]["given, centre"] == first["figures"]["difflmm"]["given, centre"]
    models = sorted(tmp_path.glob("models/*/*/model.safetensors"))
    assert [str(path.relative_to(tmp_path / "models").parent) for path in models] == [
        "clip-0/stage1", "clip-0/stage2", "difflmm-0/stage1", "difflmm-0/stage2",
    ]  # fmt: skip
    times = [path.stat().st_mtime_ns for path in models]

    study_difflmm.main()
    assert json.loads(out.read_text()) == first
    assert [path.stat().st_mtime_ns for path in models] == times

    photo = captioned_photos(data)["figures"][0]
    image_id, total, n = json.loads((tmp_path / "models/clip-0/figures.json").read_text())["loss"][0]
    assert image_id == photo.image_id
    assert total == pytest.approx(caption_loss(tmp_path, photo, n), rel=1e-4)

    monkeypatch.setattr(sys, "argv", ["study_difflmm.py", *arguments[1:]])
    with pytest.raises(SystemExit, match="was made with other steps"):
        study_difflmm.main()


@torch.inference_mode()
def caption_loss(work: Path, photo, n: int) -> float:
    """Of the last `n` tokens, by one plain forward pass of what the processor makes."""
    model, processor = load_checkpoint(str(work / "models/clip-0/stage2"))
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    image = read_image(work / "photos" / photo.small_file)
    text = f"{prompt} {photo.captions[0]}"
    inputs = processor(images=image, text=text, add_special_tokens=False, return_tensors="pt")
    log_probabilities = model.eval()(**inputs).logits[0].log_softmax(-1)
    ids = inputs["input_ids"][0]
    return -sum(log_probabilities[i - 1, ids[i]].item() for i in range(len(ids) - n, len(ids)))
