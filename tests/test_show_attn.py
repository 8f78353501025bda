"""`aas show attn`: contact sheets, through the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from aas.cli import app
from aas.records import Answer, AttentionMaps, View
from aas.store.attention import AttentionItem, write_item
from aas.view import attention_sheet
from aas.view.attention_sheet import GAP_PX, RANGE_PX, TEXT_PX, TILE_PX
from tests import tiny


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["show", "attn", *map(str, arguments)])
    return result.exit_code, result.output


def item(name: str = "photo.png", peak: tuple[int, int] = (0, 3)) -> AttentionItem:
    maps = np.full((2, 4, 4), 0.01, np.float32)
    maps[0][peak] = 0.5
    answer = Answer("What?", "a dog", (5, 6), ((0, 1), (1, 5)))
    return AttentionItem(name, (60, 90), answer, AttentionMaps(maps, View((4, 4), (0, 0, 90, 60))), "m", "t")


@pytest.fixture
def a_run(tmp_path) -> Path:
    (tmp_path / "photos").mkdir()
    Image.fromarray(tiny.a_photo((60, 90))).save(tmp_path / "photos/photo.png")
    write_item(tmp_path / "run/photo.png.safetensors", item())
    (tmp_path / "run/run.json").write_text(json.dumps({"inputs": {"images": str(tmp_path / "photos")}}))
    return tmp_path / "run"


def test_a_sheet_for_every_item_of_a_run(a_run, tmp_path):
    code, output = run(a_run, "--out", tmp_path / "sheets")
    assert code == 0 and output.strip() == str(tmp_path / "sheets/photo.png.png")
    assert Image.open(tmp_path / "sheets/photo.png.png").width > TILE_PX
    other = run(a_run / "photo.png.safetensors", "--out", tmp_path / "b", "--images", tmp_path / "photos")
    assert other[0] == 0


def test_heat_is_where_the_map_is_high():
    photo = np.full((60, 90, 3), 128, np.uint8)
    one = item()
    sheet = np.asarray(attention_sheet.draw(photo, one.answer, one.attention), np.float32).sum(2)
    top = sheet.shape[0] - 2 * (round(TILE_PX * 60 / 90) + RANGE_PX) - GAP_PX - GAP_PX
    first = sheet[top:, GAP_PX : GAP_PX + TILE_PX]
    height = round(TILE_PX * 60 / 90)
    for picture in (first[:height], first[height + RANGE_PX : 2 * height + RANGE_PX]):  # raw, and minus the mean
        peak = picture[: height // 4, 3 * TILE_PX // 4 :].mean()
        assert peak > 1.5 * picture[height // 2 :, : TILE_PX // 2].mean()
    assert top > TEXT_PX


def test_a_sheet_says_what_its_colours_mean(monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    write = attention_sheet.write
    monkeypatch.setattr(attention_sheet, "write", lambda *args: (said.append(args[2]), write(*args)))
    one = item()
    sheet = np.asarray(attention_sheet.draw(np.full((60, 90, 3), 128, np.uint8), one.answer, one.attention))
    # The raw map spans 0.01 to 0.5 and interpolation goes beyond; what lies below the mean of all tokens is cut off.
    ranges = [tuple(map(float, text.split(" … "))) for text in said if " … " in text]
    assert len(ranges) == 4
    raw, centred = ranges[:2]
    assert raw[0] == centred[0] == 0 and 0.5 <= raw[1] < 0.65 and 0.245 <= centred[1] < 0.32
    assert ranges[2] == pytest.approx((0.01, 0.01))
    assert "lowest" in said and any(text.startswith("highest value") for text in said)
    # The bar runs from dark to bright, left to right.
    head = sheet[: sheet.shape[0] // 3].astype(int).sum(2)
    bar = next(row for row in head[GAP_PX:] if (row[70:200] < 700).all())
    assert bar[70] < bar[130] < bar[190]


def test_what_cannot_be_shown(a_run, tmp_path):
    assert run(tmp_path / "gone", "--out", tmp_path)[0] == 2
    (a_run / "run.json").unlink()
    code, output = run(a_run / "photo.png.safetensors", "--out", tmp_path / "sheets")
    assert code == 2 and "--images" in output
    (a_run / "bad.png.safetensors").write_bytes(b"x")
    code, output = run(a_run, "--out", tmp_path / "sheets", "--images", tmp_path / "photos")
    assert code == 3 and "bad.png.safetensors" in output and (tmp_path / "sheets/photo.png.png").exists()
    Image.fromarray(tiny.a_photo((90, 60))).save(tmp_path / "photos/photo.png")
    code, output = run(a_run / "photo.png.safetensors", "--out", tmp_path / "c", "--images", tmp_path / "photos")
    assert code == 2 and "another size" in output


def test_items_of_the_authors_find_their_photograph_and_fit(tmp_path):
    """Glob characters in a name; padded and stretched grids lie elsewhere on the photograph."""
    (tmp_path / "photos").mkdir()
    Image.fromarray(tiny.a_photo((60, 90))).save(tmp_path / "photos/a[1].jpg")
    maps = torch.full((2, 4, 4), 0.01)
    maps[0, 0, 0] = 0.5
    torch.save({"attentions": maps, "sequences": torch.tensor([[1, 5, 6]]), "answer": "a dog"}, tmp_path / "a[1].pth")
    where = (tmp_path / "a[1].pth", "--images", tmp_path / "photos")
    for fit in ("pad", "stretch"):
        code, output = run(*where, "--out", tmp_path / fit, "--fit", fit)
        assert code == 0 and output.strip() == str(tmp_path / fit / "a[1].png")
    assert run(*where, "--out", tmp_path / "default")[0] == 0
    pad, stretch, default = ((tmp_path / fit / "a[1].png").read_bytes() for fit in ("pad", "stretch", "default"))
    assert pad == default != stretch
    code, output = run(*where, "--out", tmp_path, "--fit", "crop")
    assert code == 2 and "--fit" in output


def test_items_of_the_reference(shared_dir, tmp_path):
    golden = shared_dir / "golden"
    code, _ = run(golden / "segment/attn_pth/all-heads", "--images", golden / "images", "--out", tmp_path)
    assert code == 0 and {path.name for path in tmp_path.iterdir()} == {"dog.png", "truck.png"}
