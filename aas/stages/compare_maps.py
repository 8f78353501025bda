"""`aas compare maps`: which map source points best, on photographs whose things are known, and what each costs."""

from collections.abc import Iterator, Mapping, Sequence

from tqdm import tqdm

from aas.datasets.answers import GivenAnswer, read_answers
from aas.datasets.coco import Findings, TrueAnnotation, note
from aas.datasets.instances import InstanceTruth, read_truth
from aas.evaluations import report
from aas.ground import Grounder
from aas.images import read_image
from aas.loading import is_ours
from aas.maps import names_of
from aas.photographs import File
from aas.phrases.categories import CategoryMatcher
from aas.stages.compare_maps_answers import Looked, Looking, things_of
from aas.stages.compare_maps_costs import Costs
from aas.stages.compare_maps_options import CompareMaps
from aas.stages.compare_maps_page import MapsPage
from aas.stages.compare_maps_table import Case, as_table, cases_of, content_of
from aas.store.photographs import image_file


def compare_maps(options: CompareMaps) -> int:
    """Print the table, write JSON and page; returns the exit code. ValueError or OSError where the options cannot
    work."""
    findings: Findings = {}
    truth = read_truth(options.gt, findings, boxes=True)
    masks = _by_photograph(truth)
    files = {name: image_file(options.images, name) for name in masks}
    names, rows = names_of(options.maps), _rows(options, files)
    looking = _looking(options, sorted({truth.categories[mask.category] for some in masks.values() for mask in some}))
    page = MapsPage(options.page, names, options) if options.page else None
    costs = Costs(looking.grounder.lmm, names)
    cases: list[Case] = []
    for looked in _looked(looking, rows, files, masks, truth.categories, findings):
        cases += cases_of(looked, list(files).index(looked.row.image))
        if page:
            page.add(looked)
        if costs.n < options.costs:
            costs.look(looked.image, looked.answer.question, looked.answer.token_ids)
    if not cases:
        raise ValueError("No phrase of any answer names a category of its photograph: nothing can be compared.")
    content = content_of(names, cases, costs.medians(), options)
    if options.json_file:
        report.write_json(options.json_file, content)
    if page:
        page.write(findings)
    report.say_findings(findings)
    print(as_table(content))
    return report.exit_code(findings)


def _looking(options: CompareMaps, categories: Sequence[str]) -> Looking:
    loading = {name: getattr(options, name) for name in ("device", *options.loading())}
    models = (options.model, options.segmenter, options.phrases)
    grounder = Grounder(*models, maps=names_of(options.maps), read_out=options.read_out, **loading)
    return Looking(options, grounder, CategoryMatcher(grounder.pipeline, categories))


def _by_photograph(truth: InstanceTruth) -> dict[str, list[TrueAnnotation]]:
    """The masks of known categories, by the name of their photograph; all photographs are there."""
    found: dict[str, list[TrueAnnotation]] = {name: [] for name in truth.names.values()}
    for mask in truth.masks:
        if mask.category in truth.categories:
            found[truth.names[mask.image]].append(mask)
    return found


def _rows(options: CompareMaps, files: Mapping[str, File]) -> list[GivenAnswer]:
    """What is said, or asked, about photographs that are there."""
    there = {name for name, path in files.items() if path.is_file()}
    if not there:
        raise ValueError(f"--images {options.images}: none of the photographs of {options.gt} is there.")
    rows = read_answers(options.answers) if options.answers else [GivenAnswer(name) for name in sorted(there)]
    return [row for row in rows if row.image in there]


def _looked(
    looking: Looking,
    rows: Sequence[GivenAnswer],
    files: Mapping[str, File],
    masks: Mapping[str, Sequence[TrueAnnotation]],
    categories: Mapping[str, str],
    findings: Findings,
) -> Iterator[Looked]:
    """Each answer that names something; a photograph that cannot be read, or asked about, is noted."""
    for row in tqdm(rows, unit="answer"):
        try:
            looked = looking.at(row, read_image(files[row.image]), things_of(masks[row.image], categories))
        except Exception as error:
            if not (is_ours(error) or isinstance(error, ValueError | OSError)):
                raise
            note(findings, "unreadable_files", f"{row.image}: {error}")
            continue
        if looked is not None:
            yield looked
