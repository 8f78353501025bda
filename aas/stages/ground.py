"""`aas ground` over files and folders: one image after the other, each one's failure its own."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm
from transformers.utils import logging

from aas.ground import Grounder, Grounding
from aas.images import ImageError, list_images
from aas.store.atomic import write_text
from aas.store.keys import result_names
from aas.text import harmless
from aas.view import report, terminal

EMBEDDED_NOTICE = (
    "The embedded model is small (7 million parameters, trained on 2,000 photographs): expect simple captions and "
    "mistakes. A large one answers better: --model llava-hf/llava-1.5-7b-hf --segmenter facebook/sam-vit-huge"
)


@dataclass
class Job:
    """What to ground and what went wrong so far. `images`: (path, folder it was found in)."""

    images: list[tuple[Path, Path]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def fail(self, image: str, error: str) -> None:
        self.failures.append((image, error))
        tqdm.write(f"failed: {harmless(error)}", file=sys.stderr)


def collect(paths: Iterable[Path], out: Path) -> Job:
    """The images behind files and folders; what is missing or empty is a failure of its own.

    Raises ValueError where writing into `out` would put results among, or over, the images themselves.
    """
    job = Job()
    for path in paths:
        if path.is_dir():
            if path.resolve() == out.resolve():
                raise ValueError(f"--out {out} is a folder of images to ground; name another one for the results.")
            found = list_images(path, outside=[out])
            job.images += [(image, path) for image in found]
            if not found:
                job.fail(str(path), f"{path}: no images in this folder")
        elif path.is_file():
            job.images.append((path, path.parent))
        else:
            job.fail(str(path), f"{path}: no such file or folder")
    return job


def outputs_are_not_inputs(job: Job, names: Sequence[str], out: Path) -> None:
    inputs = {path.resolve() for path, _ in job.images}
    for name in names:
        for target in (out / f"{name}.png", out / f"{name}.json"):
            if target.resolve() in inputs:
                raise ValueError(f"The result {target} would overwrite an image; name another folder with --out.")


def ground_files(
    paths: Sequence[Path],
    out: Path,
    *,
    question: str | None = None,
    answer: str | None = None,
    model: str = "embedded",
    base: str | None = None,
    segmenter: str = "embedded",
    phrases: str = "embedded",
    preset: str = "paper",
    n_points: int | None = None,
    device: str | None = None,
    max_new_tokens: int | None = None,
    as_json: bool = False,
) -> int:
    """Ground every image into `out` (NAME.json, NAME.png, report.html); returns the exit code.

    Raises ValueError, FileNotFoundError or OSError, before anything is written, where the arguments cannot work.
    """
    if answer is not None and not answer.strip():
        raise ValueError("--answer is empty: give the words to ground, or leave it out to let the model answer.")
    job = collect(paths, out)
    names = result_names(job.images)
    outputs_are_not_inputs(job, names, out)
    out.mkdir(parents=True, exist_ok=True)
    fragments: list[str] = []
    if job.images:
        if model == "embedded":
            print(EMBEDDED_NOTICE, file=sys.stderr)
            logging.disable_progress_bar()  # of loading, which takes a second
        grounder = Grounder(
            model,
            segmenter,
            phrases,
            base=base,
            preset=preset,
            n_points=n_points,
            device=device,
            max_new_tokens=max_new_tokens,
        )
        progress = tqdm(job.images, unit="image", disable=len(job.images) == 1)
        for (path, _), name in zip(progress, names, strict=True):
            grounding = _ground_one(grounder, job, path, question, answer)
            if grounding is not None:
                done = replace(grounding, name=name)  # the one that is unique in this run
                done.save(out)
                fragments.append(report.entry(name, done.image, done.answer, done.phrases, done.view))
                _show(path, done, as_json)
    _finish(job, fragments, out, EMBEDDED_NOTICE if model == "embedded" else "")
    return 3 if job.failures else 0


def _ground_one(grounder: Grounder, job: Job, path: Path, question: str | None, answer: str | None) -> Grounding | None:
    try:
        return grounder(path, question, answer)
    except ImageError as error:
        job.fail(str(path), str(error))
    except Exception as error:  # whatever one image's trouble is, it costs nobody else's result
        job.fail(str(path), f"{path}: {type(error).__name__}: {error}")
    return None


def _show(path: Path, grounding: Grounding, as_json: bool) -> None:
    if as_json:
        line = json.dumps({"image": str(path)} | grounding.item(), ensure_ascii=False)
    else:
        answer = terminal.coloured(grounding.answer, grounding.phrases, colour=sys.stdout.isatty())
        line = f"{harmless(str(path))}: {answer}"
    tqdm.write(line, file=sys.stdout)


def _finish(job: Job, fragments: list[str], out: Path, notice: str) -> None:
    """The report over all images; failed.jsonl where something failed."""
    report.write_report(out / "report.html", fragments, "aas ground", notice, job.failures)
    failed = out / "failed.jsonl"
    failed.unlink(missing_ok=True)
    if job.failures:
        lines = [json.dumps({"image": image, "error": error}, ensure_ascii=False) for image, error in job.failures]
        write_text(failed, "\n".join(lines) + "\n")
    print(f"{len(fragments)} grounded, {len(job.failures)} failed: {out / 'report.html'}", file=sys.stderr)
