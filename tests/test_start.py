"""`aas ground` imports what it uses; what was left out is there when it is asked for."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
LEFT_OUT = ("scipy.optimize", "sklearn", "pandas", "diffusers", "matplotlib", "torch._dynamo.eval_frame",
            "torch.distributed.tensor", "spacy.cli", "httpx", "requests", "datasets", "peft")  # fmt: skip
GROUND = f"""
import sys, torch
torch.cuda.is_available = lambda: False
from aas.cli import app
try:
    app(["ground", sys.argv[1], "--out", sys.argv[2], "--max-new-tokens", "8", "--no-png"])
except SystemExit as end:
    assert not end.code
print("imported", *[name for name in {LEFT_OUT} if getattr(sys.modules.get(name), "__spec__", None)])
"""
ASK = """
import numpy as np
from transformers.loss.loss_for_object_detection import linear_sum_assignment
assert [list(one) for one in linear_sum_assignment(np.eye(2))] == [[0, 1], [1, 0]]
import torch._dynamo.config, scipy.optimize, spacy.cli
from torch.fx.experimental.symbolic_shapes import ShapeEnv, expect_true
assert torch._dynamo.config.__name__ == "torch._dynamo.config" and torch._dynamo.eval_frame and spacy.cli.download
assert sys.modules["torch._dynamo"].__file__ and torch._dynamo is sys.modules["torch._dynamo"]
assert torch._dynamo.config is sys.modules["torch._dynamo.config"]
assert scipy.optimize.minimize and expect_true(True) and ShapeEnv
print("there")
"""


def test_what_is_not_used_is_not_imported(tmp_path):
    Image.linear_gradient("L").save(tmp_path / "photo.png")
    command = [sys.executable, "-c", GROUND + ASK, str(tmp_path / "photo.png"), str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-2:] == ["imported", "there"]
