"""`aas eval gcg`: grounded captions against GranD-f's annotations, by the published protocol and by a stricter one."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import typer
from tqdm import tqdm

from aas import registry
from aas.datasets.coco import Findings
from aas.datasets.grandf import GcgAnswer, GcgTruth, read_answers, read_truth
from aas.evaluations import report, several
from aas.evaluations.gcg_evidence import all_pairs, captions, detections, of_captioned, pair_evidence
from aas.metrics import bootstrap, check_installed
from aas.metrics.captions import CaptionScorer
from aas.metrics.gcg import PROTOCOLS
from aas.metrics.text_similarity import TextEncoder
from aas.store.addresses import OF_RUN

WHY = (
    "glamm is the published evaluator: all scores 1.0, IoU over matched pairs only, a recall that stops at the first "
    "pair that fails. strict: real scores, unmatched true masks count 0, failed pairs are skipped."
)
NO_JAVA = (
    "No Java on the PATH: METEOR is left out, and BLEU, ROUGE-L and CIDEr use a Python tokenizer, which gives the same "
    "words for 99.98 % of COCO's captions (docs/evaluation.md)."
)


@dataclass(frozen=True, kw_only=True)
class EvalGcg(report.ReportOptions):
    """AP, mIoU, mask recall, METEOR, CIDEr, BLEU and ROUGE-L of grounded captions."""

    examples: ClassVar = (
        "aas eval gcg --results masks --gt-caption test_gcg_coco_caption_gt.json --gt-mask test_gcg_coco_mask_gt.json",
        "aas eval gcg --results masks --gt-caption CAPTIONS --gt-mask MASKS --protocol glamm --json run.json",
    )

    results: Annotated[
        tuple[Path, ...],
        typer.Option(
            help="Folder or URL of IMAGE_ID.json, as `aas segment gcg` writes them; of several, each beside the first.",
            **OF_RUN,
        ),
    ]
    gt_caption: Annotated[
        Path,
        typer.Option(
            help="GranD-f's captions and labels. Ids may be numbers or strings, masks polygons or run lengths."
        ),
    ]
    gt_mask: Annotated[Path, typer.Option(help="GranD-f's masks.")]
    protocol: Annotated[Literal["glamm", "strict", "both"], typer.Option(help="glamm: as published.")] = "both"
    text_encoder: Annotated[str, typer.Option(help="Of labels and phrases: a Hugging Face id, or a folder.")] = (
        "bert-base-uncased"
    )
    spice: Annotated[bool, typer.Option(help="SPICE too: needs Java 8, 8 GB of memory, and downloads 400 MB once.")] = (
        False
    )

    @property
    def protocols(self) -> tuple[str, ...]:
        return tuple(PROTOCOLS) if self.protocol == "both" else (self.protocol,)

    @property
    def caption_metrics(self) -> tuple[str, ...]:
        return tuple(name for name in registry.CAPTION_METRICS if name != "SPICE" or self.spice)

    def run(self) -> int:
        """Print the table, write what was asked for; returns the exit code."""
        places = several.named(self.results)
        found = {name: evaluate(self, path) for name, path in places.items()}
        if len(found) > 1:
            return several.deliver(found, places, _figures, self)
        ((content, findings),) = found.values()
        table = as_table(content) + (f"\n\n{WHY}" if len(self.protocols) > 1 else "")
        return report.deliver(content, findings, table, self)


def evaluate(arguments: EvalGcg, results: Path) -> tuple[dict[str, Any], Findings]:
    """Of one run (what the JSON file holds, what was wrong)."""
    check_installed("pycocoevalcap")
    findings: Findings = {}
    truth = read_truth(arguments.gt_caption, arguments.gt_mask, findings)
    answers = read_answers(results, truth, findings)
    captioner = CaptionScorer(arguments.caption_metrics)
    if not captioner.has_java:
        print(NO_JAVA, file=sys.stderr)
    pairs = all_pairs(truth, answers, TextEncoder(arguments.text_encoder))
    groups: dict[str, Any] = {"captions": captioner.evidence(captions(truth, answers))}
    content: dict[str, Any] = {}
    for protocol in arguments.protocols:
        found = detections(truth, answers, protocol)
        coco, _ = found.figures()
        groups[protocol] = pair_evidence(pairs, truth, protocol)
        by_image = report.numbers(groups[protocol] | groups["captions"], len(truth.images))
        content[protocol] = coco | by_image
        if arguments.n_resamples or arguments.json_file:
            groups[protocol] |= {"AP": of_captioned(found.evidence(), truth)}
    content["intervals"] = _intervals(arguments, groups, len(truth.images))
    content["counts"] = _counts(truth, answers) | {what: len(where) for what, where in findings.items()}
    content["settings"] = {
        "task": "gcg",
        "text_encoder": arguments.text_encoder,
        "tokenizer": "Java" if captioner.has_java else "Python",
        "resamples": arguments.n_resamples,
        "seed": arguments.seed,
    }
    return content | {"reported": findings, "images": list(truth.images), "evidence": groups}, findings


def _intervals(arguments: EvalGcg, groups: Mapping[str, Any], n_images: int) -> dict[str, Any]:
    if not arguments.n_resamples:
        return {}
    found = {
        name: bootstrap.intervals(evidence, n_images, arguments.n_resamples, arguments.seed)
        for name, evidence in tqdm(groups.items(), unit="protocol", desc="resampling images")
    }
    return {protocol: found[protocol] | found["captions"] for protocol in arguments.protocols}


def _counts(truth: GcgTruth, answers: Mapping[str, GcgAnswer]) -> dict[str, int]:
    return {
        "images": len(truth.images),
        "answers": len(answers),
        "true_masks": len(truth.masks),
        "labels": sum(map(len, truth.labels.values())),
        "masks": sum(len(answer.masks) for answer in answers.values()),
        "phrases": sum(len(answer.phrases) for answer in answers.values()),
    }


def as_table(content: Mapping[str, Any]) -> str:
    """A row per figure, a column per protocol, with 95 % intervals where there are some."""
    protocols = [name for name in PROTOCOLS if name in content]
    rows = [[figure, *(_cell(content, protocol, figure) for protocol in protocols)] for figure in content[protocols[0]]]
    return report.markdown(["", *protocols], rows)


def _cell(content: Mapping[str, Any], protocol: str, figure: str) -> str:
    interval = content["intervals"].get(protocol, {}).get(figure)
    return report.cell(content[protocol][figure], interval)


def _figures(content: Mapping[str, Any]) -> several.Figures:
    """Those of captions once: protocols share them."""
    of_captions = report.numbers(content["evidence"]["captions"], len(content["images"]))
    found: dict[str, dict[str, Any]] = {}
    for protocol in (name for name in PROTOCOLS if name in content):
        for figure, value in content[protocol].items():
            group = "captions" if figure in of_captions else protocol
            found.setdefault(group, {})[figure] = value, content["intervals"].get(protocol, {}).get(figure)
    return found
