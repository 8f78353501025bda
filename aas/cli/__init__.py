"""The `aas` command: arguments only. Heavy imports happen inside the commands, so that `aas --help` is quick."""

import json
from pathlib import Path
from typing import Annotated

import typer

from aas.cli import evaluation
from aas.cli.options import usage_errors as _usage_errors

app = typer.Typer(
    help="Ask a multimodal model about images and ground every noun phrase of its answer to a mask.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

MODEL_HELP = "LMM: `embedded`, a Hugging Face id (id@revision) or a folder."
BASE_HELP = "Base LLM of a LoRA checkpoint in LLaVA's own format."
ADAPTER_HELP = "LoRA adapter (peft) to merge into the model."
DEVICE_HELP = "cpu, cuda, cuda:1, ... Default: cuda if there is one."
DTYPE_HELP = "auto, bfloat16, float32 or float16."
QUANTIZE_HELP = "4bit or 8bit, with bitsandbytes."
SEGMENTER_HELP = "Segmenter: `embedded`, a Hugging Face id of a SAM, a folder, or a file as sam_vit_h_4b8939.pth."
PHRASES_HELP = "spaCy pipeline: `embedded`, a package name or a folder."


@app.callback()
def main() -> None:
    pass


@app.command(
    epilog="Examples:\n\n"
    "  aas ground photo.jpg\n\n"
    "  aas ground holiday/ --out grounded\n\n"
    '  aas ground photo.jpg --answer "a dog on a bench"\n\n'
    "  aas ground photo.jpg --model llava-hf/llava-1.5-7b-hf --segmenter facebook/sam-vit-huge"
)
def ground(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", metavar="IMAGE_OR_FOLDER...")],
    question: Annotated[str | None, typer.Option(help="Default: Describe the image in detail.")] = None,
    answer: Annotated[str | None, typer.Option(help="Ground these words instead of the model's own.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for NAME.json, NAME.png and report.html.")] = Path("grounded"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line per image.")] = False,
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "embedded",
    base: Annotated[str | None, typer.Option(help=BASE_HELP)] = None,
    segmenter: Annotated[str, typer.Option(help=SEGMENTER_HELP)] = "embedded",
    phrases: Annotated[str, typer.Option(help=PHRASES_HELP)] = "embedded",
    preset: Annotated[str, typer.Option(help="paper, reference-2024 or reference-2025.")] = "paper",
    points: Annotated[
        int | None,
        typer.Option(min=1, help="Peaks that become points. Default: 1; embedded segmenter: 3."),
    ] = None,
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer, in tokens. Default: the model's own limit, or 512.")
    ] = None,
) -> None:
    """Answer a question about each image and ground every noun phrase of the answer."""
    from aas.stages.ground import ground_files

    with _usage_errors():
        code = ground_files(
            images,
            out,
            question=question,
            answer=answer,
            model=model,
            base=base,
            segmenter=segmenter,
            phrases=phrases,
            preset=preset,
            n_points=points,
            device=device,
            max_new_tokens=max_new_tokens,
            as_json=as_json,
        )
    raise typer.Exit(code)


@app.command(
    "infer-attn",
    epilog="Examples:\n\n"
    "  aas infer-attn --images photos/ --out run\n\n"
    "  aas infer-attn --images val2017/ --ref-anno val2017.json --out run --model Qwen/Qwen3-VL-8B-Instruct\n\n"
    "  aas infer-attn --images photos/ --out run --answers answers.jsonl       (teacher forcing)\n\n"
    "  aas infer-attn --images photos/ --out run --num-chunks 8 --chunk-idx 0  (one of eight processes)",
)
def infer_attn(
    images: Annotated[Path, typer.Option(help="Folder of images, or a text file with one path per line.")],
    out: Annotated[Path, typer.Option(help="Run folder: one file per image. Started again, it goes on.")],
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "embedded",
    base: Annotated[str | None, typer.Option(help=BASE_HELP)] = None,
    adapter: Annotated[str | None, typer.Option(help=ADAPTER_HELP)] = None,
    ref_anno: Annotated[Path | None, typer.Option(help="COCO or GranD-f annotation: take its images only.")] = None,
    question: Annotated[str, typer.Option(help="What to ask about each image.")] = "Describe the image in detail.",
    answers: Annotated[
        Path | None,
        typer.Option(help='Given answers: JSON lines {"image": …, "answer": …}. With "question" only, asked.'),
    ] = None,
    batch_size: Annotated[str, typer.Option(help="Images at once, or `auto`.")] = "auto",
    num_chunks: Annotated[int, typer.Option(min=1, help="Split the images into so many parts …")] = 1,
    chunk_idx: Annotated[int, typer.Option(min=0, help="… and do this one (from 0).")] = 0,
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP)] = "auto",
    quantize: Annotated[str | None, typer.Option(help=QUANTIZE_HELP)] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer, in tokens. Default: the model's own limit, or 512.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy; above, tokens are drawn.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens of this total.")] = 1.0,
    num_beams: Annotated[int, typer.Option(help="Must be 1: a beam search has no attention of its answer.")] = 1,
    seed: Annotated[int, typer.Option(help="Of every image's own generator.")] = 0,
    keep: Annotated[str, typer.Option(help="mean of layers and heads, or one map for all layers, or heads.")] = "mean",
    layers: Annotated[str, typer.Option(help="all, or numbers: 0,1,-1.")] = "all",
    heads: Annotated[str, typer.Option(help="all, or numbers: -2.")] = "all",
    alignment: Annotated[
        str, typer.Option(help="predict: the row that predicts the token; self: its own row.")
    ] = "predict",
    view: Annotated[str | None, typer.Option(help="Of models with several grids: its name, or `combined`.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that read images. Default: by cores.")] = None,
) -> None:
    """Ask a model about many images and store the attention of every answer token."""
    from aas.stages.infer_attn import InferAttn, infer_attn

    with _usage_errors():
        for option, value, known in (
            ("--keep", keep, ("mean", "layers", "heads")),
            ("--alignment", alignment, ("predict", "self")),
        ):
            if value not in known:
                raise ValueError(f"{option} {value!r}: give {', '.join(known)}.")
        if batch_size != "auto" and (not batch_size.isdigit() or int(batch_size) == 0):
            raise ValueError(f"--batch-size {batch_size!r}: give `auto` or a number above 0.")
        arguments = InferAttn(
            images=images,
            out=out,
            model=model,
            base=base,
            adapter=adapter,
            ref_anno=ref_anno,
            question=question,
            answers=answers,
            batch_size=None if batch_size == "auto" else int(batch_size),
            num_chunks=num_chunks,
            chunk_idx=chunk_idx,
            device=device,
            dtype=dtype,
            quantize=quantize,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            num_beams=num_beams,
            seed=seed,
            keep=keep,  # type: ignore[arg-type]
            layers=layers,
            heads=heads,
            alignment=alignment,  # type: ignore[arg-type]
            view=view,
            workers=workers,
        )
        code = infer_attn(arguments)
    raise typer.Exit(code)


@app.command(
    epilog="Examples:\n\n"
    "  aas segment gcg --attn run --images photos/ --out masks\n\n"
    "  aas segment instance --attn run --images val2017/ --ref-anno instances_val2017.json --out instances\n\n"
    "  aas segment expressions --attn run --images val2017/ --answers refcoco.jsonl --out masks\n\n"
    "  aas segment gcg --attn reference_pth/ --images photos/ --out masks --tokenizer liuhaotian/llava-v1.5-7b"
)
def segment(
    task: Annotated[
        str,
        typer.Argument(help="gcg: a mask for each phrase. instance: of COCO categories. expressions: of --answers."),
    ],
    attn: Annotated[Path, typer.Option(help="Run folder of `aas infer-attn`, or a folder of the reference's .pth.")],
    images: Annotated[Path, typer.Option(help="Folder of the photographs.")],
    out: Annotated[Path, typer.Option(help="Run folder: one file per image. Started again, it goes on.")],
    ref_anno: Annotated[Path | None, typer.Option(help="COCO or GranD-f annotation: its images, with its ids.")] = None,
    answers: Annotated[Path | None, typer.Option(help="Of expressions: the file that infer-attn was given.")] = None,
    segmenter: Annotated[str, typer.Option(help=SEGMENTER_HELP)] = "embedded",
    phrases: Annotated[str, typer.Option(help=PHRASES_HELP)] = "embedded",
    preset: Annotated[str, typer.Option(help="paper, reference-2024 or reference-2025.")] = "paper",
    tokenizer: Annotated[str | None, typer.Option(help="Of the reference's items (.pth), which hold ids only.")] = None,
    fit: Annotated[str, typer.Option(help="Of those items: images were padded (pad) or stretched (stretch).")] = "pad",
    merge: Annotated[
        str | None,
        typer.Option(help="Tokens of a phrase: mean, max, first. Default: the preset's, of expressions max."),
    ] = None,
    words: Annotated[str, typer.Option(help="Tokens of the root word (root), or of all (chunk).")] = "root",
    drop: Annotated[
        list[str] | None, typer.Option(help="Leave out pronouns, or the unseen (the image, the background).")
    ] = None,
    prompt: Annotated[str, typer.Option(help="point: at the map's peak. mask: the map as a coarse mask.")] = "point",
    points: Annotated[int, typer.Option(min=1, help="Peaks that become points, at most.")] = 1,
    negative_points: Annotated[int, typer.Option(min=0, help="Troughs that become negative points, at most.")] = 0,
    mask_choice: Annotated[str, typer.Option(help="Of three masks: last, best-score, best-attention.")] = "last",
    categories: Annotated[
        str, typer.Option(help="Of instances: present in the ground truth (an oracle), all, or a file of names.")
    ] = "present",
    category_thresh: Annotated[float, typer.Option(help="Least cosine between a phrase and its category.")] = 0.5,
    more_masks: Annotated[bool, typer.Option("--more-masks", help="Of instances: keep all three masks.")] = False,
    num_chunks: Annotated[int, typer.Option(min=1, help="Split the images into so many parts …")] = 1,
    chunk_idx: Annotated[int, typer.Option(min=0, help="… and do this one (from 0).")] = 0,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images encoded at once. Default: 8 on a GPU, 1 on a CPU.")
    ] = None,
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
    dtype: Annotated[str, typer.Option(help="Of the image encoder: auto, bfloat16, float32 or float16.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read images, or do them. Default: by cores.")
    ] = None,
) -> None:
    """Turn stored attention into masks."""
    from aas.stages.segment import segment
    from aas.stages.segment_arguments import Segment

    with _usage_errors():
        if task not in ("gcg", "instance", "expressions"):
            raise ValueError(f"Nothing to segment for {task!r}: give gcg, instance or expressions.")
        arguments = Segment(
            task=task,  # type: ignore[arg-type]
            attn=attn,
            images=images,
            out=out,
            ref_anno=ref_anno,
            answers=answers,
            segmenter=segmenter,
            phrases=phrases,
            preset=preset,
            tokenizer=tokenizer,
            fit=fit,  # type: ignore[arg-type]
            merge=merge,  # type: ignore[arg-type]
            words=words,  # type: ignore[arg-type]
            drop=tuple(drop or ()),  # type: ignore[arg-type]
            prompt=prompt,  # type: ignore[arg-type]
            points=points,
            negative_points=negative_points,
            mask_choice=mask_choice,  # type: ignore[arg-type]
            categories=categories,
            category_thresh=category_thresh,
            more_masks=more_masks,
            num_chunks=num_chunks,
            chunk_idx=chunk_idx,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            workers=workers,
        )
        code = segment(arguments)
    raise typer.Exit(code)


@app.command(epilog="Examples:\n\n  aas merge instances")
def merge(folder: Annotated[Path, typer.Argument(help="Run folder of `aas segment instance`.")]) -> None:
    """Put the results of all images into one file, results.json."""
    from aas.store.merge import merge as merge_folder

    with _usage_errors():
        typer.echo(merge_folder(folder))


@app.command(epilog="Examples:\n\n  aas status run")
def status(
    folder: Annotated[Path, typer.Argument(help="Run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how far a run is, and what failed."""
    from aas.store import status as runs

    with _usage_errors():
        found = runs.status(folder)
    typer.echo(json.dumps(found, indent=1) if as_json else runs.status_text(folder, found))


@app.command(epilog="Examples:\n\n  aas verify run")
def verify(folder: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Read every item of a run and name those that are damaged."""
    from aas.store import status as runs

    with _usage_errors():
        wrong = runs.verify(folder)
    for line in wrong:
        typer.echo(line)
    typer.echo(f"{len(wrong)} damaged" + (": delete them and run the command again." if wrong else "."), err=True)
    raise typer.Exit(1 if wrong else 0)


@app.command(
    epilog="Examples:\n\n  aas doctor\n\n  aas doctor embedded\n\n  aas doctor Qwen/Qwen3-VL-8B-Instruct --json"
)
def doctor(
    model: Annotated[str | None, typer.Argument(help=MODEL_HELP)] = None,
    base: Annotated[str | None, typer.Option(help=BASE_HELP)] = None,
    adapter: Annotated[str | None, typer.Option(help=ADAPTER_HELP)] = None,
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP)] = "auto",
    quantize: Annotated[str | None, typer.Option(help=QUANTIZE_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what this machine has, and check that a model's attention and geometry are right here."""
    from aas import doctor as task

    with _usage_errors():
        report, well = task.doctor(model, device=device, dtype=dtype, base=base, adapter=adapter, quantize=quantize)
    typer.echo(json.dumps(report, indent=1) if as_json else task.as_text(report))
    raise typer.Exit(0 if well else 1)


@app.command("list", epilog="Examples:\n\n  aas list models")
def list_kind(
    kind: Annotated[str, typer.Argument(help="models")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what can be named in the other commands."""
    with _usage_errors():
        if kind != "models":
            raise ValueError(f"Nothing to list under {kind!r}. Known: models.")
        from aas import catalogue

        rows = catalogue.families()
    typer.echo(json.dumps(rows, indent=1) if as_json else catalogue.as_text(rows))


show = typer.Typer(help="Pictures of what a run stored.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(show, name="show")


@show.callback()
def show_main() -> None:
    pass


@show.command(
    "attn",
    epilog="Examples:\n\n"
    "  aas show attn run/photo.jpg.safetensors\n\n"
    "  aas show attn run --out sheets\n\n"
    "  aas show attn photo.pth --images photos/ --tokenizer liuhaotian/llava-v1.5-7b",
)
def show_attn(
    items: Annotated[list[Path], typer.Argument(help="Items of `aas infer-attn`, or run folders.")],
    out: Annotated[Path, typer.Option(help="Folder for one PNG per item.")] = Path("sheets"),
    images: Annotated[Path | None, typer.Option(help="Folder of the photographs. Default: as in run.json.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="For items of the reference (.pth): names their words.")] = None,
) -> None:
    """Draw each token's attention over the photograph, before and after removing the token mean."""
    from aas.show.attn import show_attn

    with _usage_errors():
        code = show_attn(items, out, images, tokenizer)
    raise typer.Exit(code)


@show.command(
    "masks",
    epilog="Examples:\n\n"
    "  aas show masks masks/ --out pictures\n\n"
    "  aas show masks instances/ --gt instances_val2017.json --only 139",
)
def show_masks(
    folder: Annotated[Path, typer.Argument(help="Run folder of `aas segment`.")],
    out: Annotated[Path, typer.Option(help="Folder for one PNG per image, and a contact sheet.")] = Path("pictures"),
    images: Annotated[Path | None, typer.Option(help="Folder of the photographs. Default: as in run.json.")] = None,
    gt: Annotated[Path | None, typer.Option(help="COCO or GranD-f masks. Default: the run's --ref-anno.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Id of an image to show; may be repeated.")] = None,
) -> None:
    """Draw each image with its ground truth, its masks, and the answer."""
    from aas.show.masks import show_masks

    with _usage_errors():
        code = show_masks(folder, out, images, gt, only)
    raise typer.Exit(code)


evaluation.add_to(app)


if __name__ == "__main__":
    app()
