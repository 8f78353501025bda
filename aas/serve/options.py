"""The options of `aas serve`. Nothing heavy is imported here: `aas --help` reads it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Option

from aas.choices import Dtype
from aas.stages.options import MASK, MODEL, PHRASE, RUN


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Talk about photographs in a browser: ask, see each phrase's mask as the answer is written, correct masks, save.

    Prints its address and runs until Ctrl-C. It listens on 127.0.0.1 and sends nothing elsewhere.
    """

    model: Annotated[
        tuple[str, ...], MODEL(help="LMM: embedded, a Hugging Face id or a folder. Several are a choice in the app.")
    ] = ("embedded",)
    segmenter: Annotated[tuple[str, ...], MASK(help="The same for the segmenter.")] = ("embedded",)
    head: Annotated[
        tuple[str, ...],
        MASK(help="Mask head that was trained on the model, by file or name: a choice (docs/heads.md)."),
    ] = ()
    phrases: Annotated[str, PHRASE(help="spaCy pipeline: embedded, a package name or a folder.")] = "embedded"
    dtype: Annotated[Dtype, MODEL(help="What an LMM computes in.")] = "auto"
    device: Annotated[str | None, RUN(help="cpu, cuda, cuda:1, ... Default: cuda if there is one.")] = None
    out: Annotated[Path, Option(help="Run folder in which answers are saved.")] = Path("served")
    port: Annotated[int | None, Option(min=1, max=65535, help="Default: the first free one from 7860 on.")] = None
    share: Annotated[
        bool, Option(help="Also a public address, through gradio's servers: anybody who has it can use the app.")
    ] = False
    max_megabytes: Annotated[int, Option(min=1, help="Largest photograph that is taken.")] = 20
