"""`aas doctor` and `aas list`, through the command."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from aas import doctor, registry
from aas.cli import app
from aas.geometry import stretched_view
from aas.lmms.base import LMM
from aas.lmms.checks import _about_centre, fitted_scales, plant_squares
from aas.lmms.grids import TokenGrid
from aas.lmms.llava import Llava
from tests import tiny
from tests.tiny.llava import llava


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and stdout; stderr where there is none."""
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout or result.stderr


def test_environment_alone():
    code, output = run("doctor", "--json")
    found = json.loads(output)["environment"]
    assert code == 0 and found["packages"]["torch"] == torch.__version__ and found["cores"] > 0
    code, output = run("doctor")
    assert code == 0 and torch.__version__ in output and "Java" in output


def test_the_embedded_model_is_supported():
    code, output = run("doctor", "embedded", "--json")
    found = json.loads(output)["model"]
    assert code == 0 and found["supported"] and found["views"][0]["size_hw"] == [14, 14]
    assert found["against_eager"]["difference"] <= 1e-5
    assert found["memory"]["weights_gib"] == pytest.approx(0.21, abs=0.01)


def test_the_card_of_a_model():
    report = {"environment": doctor.environment(), "model": {"seconds_to_load": 0.1} | doctor.examine(tiny_llava())}
    text = doctor.as_text(report)
    assert "tiny llava: supported" in text and "image 4 x 4 (default)" in text
    assert "on so few cells as image has, a scale of 1.2 may go unseen" in text


def tiny_llava() -> LMM:
    return tiny.family("llava")


class Transposed(Llava):
    """Claims that the image's tokens go down the columns first."""

    def grids(self, inputs: dict[str, torch.Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        (grid,) = super().grids(inputs, image_hw)
        return [TokenGrid(grid.view, grid.positions.unflatten(0, grid.view.size_hw).T.flatten())]


class Stretched(Llava):
    """Claims that the whole image was seen, where its centre was cut out."""

    def grids(self, inputs: dict[str, torch.Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        (grid,) = super().grids(inputs, image_hw)
        return [TokenGrid(stretched_view(grid.view.size_hw, image_hw), grid.positions)]


class Scaled(Llava):
    """Claims more or less of the image than was seen, about the same centre."""

    scale = 1.2

    def grids(self, inputs: dict[str, torch.Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        (grid,) = super().grids(inputs, image_hw)
        return [TokenGrid(_about_centre(grid.view, self.scale, self.scale), grid.positions)]


@pytest.mark.parametrize("cells", [6, 8, 12])
@pytest.mark.parametrize("scale", [1, 1.2, 1 / 1.2])
def test_a_wrong_scale_is_found_out(scale, cells):
    lmm = Scaled(*llava(image_side=14 * cells), "liar")
    lmm.scale = scale
    found = [one for size_hw in doctor.PICTURES_HW for one in fitted_scales(lmm, size_hw)]
    assert (set(found) == {1.0}) == (scale == 1)
    assert doctor.examine(lmm)["supported"] == (scale == 1)


@pytest.mark.parametrize("liar", [Transposed, Stretched])
def test_a_wrong_geometry_is_found_out(liar):
    lmm = liar(*llava(image_side=168), "liar")
    found = [square.separation for size_hw in doctor.PICTURES_HW for square in plant_squares(lmm, size_hw)]
    assert min(found) < doctor.SEPARATION
    assert not doctor.examine(lmm)["supported"]


def test_wrong_maps_are_found_out(monkeypatch):
    lmm = tiny_llava()
    answer = LMM.run

    def off_by_one_row(self, batch, options):
        return [
            (said, type(maps)(np.roll(maps.maps, 1, axis=0), maps.view)) for said, maps in answer(self, batch, options)
        ]

    monkeypatch.setattr(LMM, "run", off_by_one_row)
    assert not doctor.examine(lmm)["supported"]


def test_an_unknown_model_is_a_usage_error():
    code, output = run("doctor", "no/such-model")
    assert code == 2 and "no/such-model" in output


def test_the_table_of_families():
    code, output = run("list", "models")
    assert code == 0
    for model_type in registry.LMM_FAMILIES:
        assert any(line.startswith(model_type + " ") and len(line.split()) > 5 for line in output.splitlines())
    code, output = run("list", "llamas")
    assert code == 2 and "'llamas' is not one of 'models', 'segmenters'" in output
    assert {row["model_type"] for row in json.loads(run("list", "models", "--json")[1])} == set(registry.LMM_FAMILIES)
