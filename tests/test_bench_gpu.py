"""scripts/bench_gpu.py: its arithmetic against the reference's figures and torch's own count, and all of it in tiny."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from bench_gpu import SEGMENTER, Bench, asked_for, run
from gpu_report import Report
from gpu_roofline import DATA_SHEETS, Peaks, least_of, sam_flops
from gpu_shapes import TINY, lmm_of, sam_of
from gpu_ways import Answers, Masks


def test_the_stated_roofline():
    """Of LLaVA-1.5-7B with 620 tokens, 64 new ones, batch 128, worked out elsewhere in round numbers: 41 images/s
    on an H100, 47 on an H200."""
    lmm = lmm_of("llava-1.5-7b", "meta", torch.bfloat16)
    inputs = {"input_ids": torch.empty(128, 620), "pixel_values": torch.empty(128, 3, 336, 336)}
    least = least_of(lmm, inputs, 64)
    assert least.prefill_flops / 128 == pytest.approx(8.4e12, rel=0.03)
    for gpu, images_per_s in (("H100", 41), ("H200", 47)):
        assert 128 / least.seconds(Peaks(*DATA_SHEETS[gpu], gpu), 64) == pytest.approx(images_per_s, rel=0.07)


@pytest.mark.parametrize("name", TINY)
def test_operations_are_those_that_torch_counts(name):
    """But for the half of the prefill's scores that causality hides, which torch counts, and patches' embeddings."""
    lmm = lmm_of(name, "cpu", torch.float32, tiny=True)
    lmm.model.set_attn_implementation("eager")  # a CPU's fused attention is not counted
    counted = []
    for n_new in (1, 2):
        asked = Answers(lmm, 2, n_new)
        with FlopCounterMode(display=False) as counter:
            asked.plain()
        counted.append(counter.get_total_flops())
    text, n_prompt = lmm.text_config, asked.inputs["input_ids"].shape[1]
    hidden = 2 * 2 * text.num_hidden_layers * text.hidden_size * n_prompt**2
    least = least_of(lmm, asked.inputs, 2)
    assert counted[0] == pytest.approx(least.prefill_flops + hidden, rel=0.02)
    assert counted[1] - counted[0] == pytest.approx(least.step_flops, rel=0.02)


def test_operations_of_sam():
    segmenter = sam_of("cpu", torch.float32, tiny=True)
    segmenter.model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        Masks(segmenter, 1).encode()
    model = segmenter.model
    flops = sam_flops(model.config.vision_config, model.vision_encoder)
    assert counter.get_total_flops() == pytest.approx(flops, rel=0.1)


def test_all_of_it_in_tiny(tmp_path):
    given = "--tiny --device cpu --models llava-1.5-7b sam-vit-h --batch-sizes 2 --new-tokens 2 --rounds 1 --out"
    run(asked_for([*given.split(), str(tmp_path)]))
    found = json.loads((tmp_path / "bench_gpu.json").read_text())
    rows = {(row["way"], row["batch"]): row for row in found["rows"] if row["model"] != SEGMENTER}
    assert not [row for row in found["rows"] if "failed" in row]
    assert rows.keys() == {("build", 0), ("ours", 2), ("reference", 1), ("one_layer", 2), ("profile", 2), ("plain", 2),
                           ("files", 2)}  # fmt: skip
    assert all(rows["ours", 2][key] > 0 for key in ("images_per_s", "of_roofline", "decode_bytes_per_s", "peak_gib"))
    assert len(found["profiles"][0]["operations"]) > 5
    table = (tmp_path / "bench_gpu.md").read_text().splitlines()
    assert [line.split(" | ")[4] for line in table if "| reference |" in line] == ["1.0", "1.0"]


def test_what_fails_ends_its_row_alone(tmp_path):
    def row(batch):
        if batch == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"images_per_s": 1.0}

    options = asked_for(["--device", "cpu"])
    report = Report(tmp_path, "CPU", Peaks(1, 1, "none"), {})
    bench = Bench(options, [1, 2, 4], report=report, peaks=Peaks(1, 1, "none"), ends=float("inf"))
    assert bench.by_batch("a model", "ours", row) == 1
    assert [one.get("failed") for one in report.rows] == [None, "out of memory"]
    late = Bench(options, [1], report=report, peaks=Peaks(1, 1, "none"), ends=0.0)
    late.by_batch("a model", "plain", row)
    written = json.loads((tmp_path / "bench_gpu.json").read_text())["rows"]
    assert written == report.rows and written[-1]["failed"] == "not run: out of time"
