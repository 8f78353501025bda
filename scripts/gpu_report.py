"""What bench_gpu.py found, as JSON and as tables to read; written anew after each row."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from gpu_roofline import Peaks

from aas.store.atomic import write_text

Row = dict[str, Any]
# heading -> a row's entry and how it is written
COLUMNS = {
    "model": ("model", "{}"),
    "way": ("way", "{}"),
    "batch": ("batch", "{}"),
    "images/s": ("images_per_s", "{:.2f}"),
    "× reference": ("times_reference", "{:.1f}"),
    "of roofline": ("of_roofline", "{:.0%}"),
    "tokens/s": ("tokens_per_s", "{:.0f}"),
    "prompt": ("prompt_tokens", "{}"),
    "prefill, ms": ("prefill_ms", "{:.1f}"),
    "TFLOP/s": ("prefill_tflops", "{:.2f}"),
    "step, ms": ("step_ms", "{:.2f}"),
    "GB/s": ("decode_gb", "{:.1f}"),
    "peak, GiB": ("peak_gib", "{:.2f}"),
    "": ("failed", "{}"),
}


class Report:
    """The rows so far, in `folder`."""

    def __init__(self, folder: Path, device: str, peaks: Peaks, settings: dict[str, Any]):
        self.folder, self.rows, self.profiles = folder, list[Row](), list[Row]()
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        self.about = {"device": device, "peaks": vars(peaks), "settings": settings, "versions": versions}
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, row: Row) -> None:
        """A row that was measured, or why it was not."""
        self.rows.append(row)
        print("  ".join(f"{key} {_short(value)}" for key, value in row.items()), flush=True)
        self.write()

    def profile(self, model: str, batch: int, operations: list[Row]) -> None:
        """Where a model's time goes."""
        self.profiles.append({"model": model, "batch": batch, "operations": operations})

    def write(self) -> None:
        """Both files, with all that is known by now."""
        found = self.about | {"rows": self.rows, "profiles": self.profiles}
        write_text(self.folder / "bench_gpu.json", json.dumps(found, indent=1) + "\n")
        write_text(self.folder / "bench_gpu.md", self.markdown())

    def markdown(self) -> str:
        """Tables of rows and profiles."""
        peaks = self.about["peaks"]
        limits = f"{peaks['flops'] / 1e12:.3g} TFLOP/s, {peaks['bandwidth'] / 1e9:.4g} GB/s ({peaks['source']})"
        rows = [[_cell(self._shown(row), *column) for column in COLUMNS.values()]
                for row in self.rows if row.keys() & {"images_per_s", "failed"}]  # fmt: skip
        tables = [f"{self.about['device']}: {limits}. {self.about['settings']}\n", _table(list(COLUMNS), rows)]
        for one in self.profiles:
            cells = [[e["operation"], f"{e['ms']:.2f}", f"{e['of_time']:.0%}", str(e["calls"])]
                     for e in one["operations"]]  # fmt: skip
            tables += [
                f"\n{one['model']}, batch {one['batch']}:\n",
                _table(["operation", "ms", "share", "calls"], cells),
            ]
        return "\n".join(tables) + "\n"

    def _shown(self, row: Row) -> Row:
        """In the units of the table, and beside the model's reference."""
        reference = [r["images_per_s"] for r in self.rows
                     if (r["model"], r["way"]) == (row["model"], "reference") and "images_per_s" in r]  # fmt: skip
        made = {"prefill_ms": ("prefill_s", 1e3), "prefill_tflops": ("prefill_flops_per_s", 1e-12),
                "decode_gb": ("decode_bytes_per_s", 1e-9)}  # fmt: skip
        shown = row | {new: row[old] * scale for new, (old, scale) in made.items() if old in row}
        if reference and "images_per_s" in row:
            shown["times_reference"] = row["images_per_s"] / reference[0]
        return shown


def _cell(row: Row, key: str, form: str) -> str:
    return form.format(row[key]) if key in row else ""


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
