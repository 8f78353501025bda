"""Make the embedded phrases model: spaCy's en_core_web_sm, with word vectors learned from captions.

    python scripts/embedded/parts.py --out work/parts
    python scripts/embedded/make_phrases.py --parts work/parts --data DIR --out checkpoints/embedded/phrases

Tagger, parser and lemmatizer are en_core_web_sm's own (MIT); names of people and places are not looked for. It has no
word vectors: they come from the COCO captions, by PPMI and truncated SVD, and serve `Doc.vector` alone.

DIR holds `coco/annotations/{captions,instances}_*.json` and, for the scores, `ewt/en_ewt-ud-{dev,test}.conllu.gz`.
"""

import argparse
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import spacy
from scipy.sparse.linalg import svds
from spacy.language import Language
from spacy.scorer import Scorer
from spacy.training import Example
from spacy.vectors import Vectors
from split import default_data_dir, kept_out
from treebank import Tree, convert, read_paragraphs, to_doc

NOT_NEEDED, LICENCES = ["ner", "senter"], ("LICENSE", "LICENSES_SOURCES")
WINDOW_DIMS, IMAGE_DIMS, IMAGE_WEIGHT = 60, 40, 0.8  # of the word vectors

# Words and the COCO category they belong to; not looked at while the settings of the vectors were chosen.
CATEGORY_WORDS = {
    "person": "kid kids girls boys gentleman baby ladies skateboarders cyclist crowd pedestrian batter",
    "airplane": "airplanes jetliner aircraft airliner jets",
    "motorcycle": "scooter motorbikes",
    "dog": "pup puppies poodle bulldog",
    "cat": "cats kittens",
    "cow": "cows bulls calves",
    "sheep": "ewe ewes",
    "horse": "ponies mare foal",
    "bird": "birds owl geese pigeons ducks seagulls",
    "bear": "bears cub",
    "giraffe": "giraffes",
    "couch": "couches sofas",
    "chair": "chairs recliner",
    "tv": "tvs televisions monitor",
    "laptop": "computers notebook",
    "cell phone": "phones cellphones",
    "refrigerator": "refrigerators freezer",
    "boat": "boats ships yacht rowboat ferry",
    "bus": "buses",
    "truck": "trucks trailer",
    "bicycle": "bikes",
    "train": "trains",
    "pizza": "pizzas",
    "donut": "donuts",
    "sandwich": "sandwiches hamburger sub",
    "cake": "cakes",
    "cup": "cups teacup",
    "bowl": "bowls",
    "apple": "apples",
    "orange": "oranges",
    "carrot": "carrots",
    "toilet": "toilets urinal",
    "sink": "sinks",
    "clock": "clocks",
    "bench": "benches",
    "umbrella": "parasol parasols",
    "backpack": "backpacks knapsack",
    "handbag": "purses",
    "suitcase": "baggage suitcases",
    "surfboard": "surfboards",
    "skateboard": "skateboards",
    "snowboard": "snowboards",
    "teddy bear": "teddies",
    "tie": "ties necktie",
}


# --- data


def load_trees(data: Path, part: str) -> list[list[Tree]]:
    """Converted trees of one part (`train`, `dev` or `test`), a list per paragraph."""
    path = data / "ewt" / f"en_ewt-ud-{part}.conllu.gz"
    return [[convert(tree) for tree in paragraph] for paragraph in read_paragraphs(path)]


def load_captions(data: Path) -> list[tuple[int, str]]:
    """(image id, caption) of every photograph that is not kept out, in a fixed order."""
    left_out = {image_id for part in kept_out(data) for image_id in part}
    files = sorted((data / "coco" / "annotations").glob("captions_*.json"))
    annotations = [a for file in files for a in json.loads(file.read_text())["annotations"]]
    return sorted({(a["image_id"], a["caption"].strip()) for a in annotations if a["image_id"] not in left_out})


def load_categories(data: Path) -> list[str]:
    """The 80 COCO category names."""
    file = next((data / "coco" / "annotations").glob("instances_*.json"))
    return [category["name"] for category in json.loads(file.read_text())["categories"]]


def as_examples(nlp: Language, texts: Iterable[list[Tree]]) -> list[Example]:
    """Pair raw text with gold annotation, so that training and scores include the tokenizer's errors."""
    golds = [to_doc(nlp.vocab, trees) for trees in texts]
    return [Example(nlp.make_doc(gold.text), gold) for gold in golds]


# --- word vectors


def window_counts(sentences: list[list[str]], rows: dict[str, int], window: int) -> sp.csr_matrix:
    """How often each word stands at most `window` words left of each other, and right of it: float [V, 2V].

    Telling the sides apart brings together words that can replace each other (*sofa*, *couch*) rather than
    words that occur together (*sofa*, *living*).
    """
    n = len(rows)
    left, right = [], []
    for sentence in sentences:
        ids = np.array([rows.get(word, -1) for word in sentence])
        for distance in range(1, min(window, len(ids) - 1) + 1):
            known = (ids[:-distance] >= 0) & (ids[distance:] >= 0)
            left.append(ids[:-distance][known])
            right.append(ids[distance:][known])
    a, b = np.concatenate(left), np.concatenate(right)
    row, column = np.concatenate([b, a]), np.concatenate([a, b + n])
    return sp.coo_matrix((np.ones(len(row)), (row, column)), shape=(n, 2 * n)).tocsr()


def image_counts(captions: list[tuple[int, list[str]]], rows: dict[str, int]) -> sp.csr_matrix:
    """Which words describe which image: 0/1 [V, images]. Annotators name one thing in different words."""
    columns: dict[int, int] = {}
    pairs = {
        (rows[word], columns.setdefault(image, len(columns)))
        for image, words in captions
        for word in words
        if word in rows
    }
    row, column = np.array(sorted(pairs)).T
    return sp.coo_matrix((np.ones(len(row)), (row, column)), shape=(len(rows), len(columns))).tocsr()


def singulars(words: Iterable[str], lemmas: dict[str, str]) -> dict[str, str]:
    """Map plurals to singulars that are words too; `lemmas` knows the irregular ones."""
    words = set(words)
    found = {}
    for word in words:
        regular = [word.removesuffix("ies") + "y", word.removesuffix("es"), word.removesuffix("s")]
        guesses = [lemmas[word]] if word in lemmas else regular if len(word) > 3 and word[-2:] != "ss" else []
        if single := next((guess for guess in guesses if guess in words and guess != word), None):
            found[word] = single
    return found


def add_singulars(counts: sp.csr_matrix, rows: dict[str, int], singular: dict[str, str]) -> sp.csr_matrix:
    """Add the counts of *dog* to those of *dogs*: rare plurals would be nearest to other plurals."""
    pairs = [(rows[plural], rows[single]) for plural, single in singular.items()]
    mixing = sp.identity(len(rows), format="lil")
    for plural, single in pairs:
        mixing[plural, single] = 1
    return (mixing.tocsr() @ counts).tocsr()


def ppmi(counts: sp.csr_matrix, smoothing: float = 0.75) -> sp.csr_matrix:
    """Positive pointwise mutual information with smoothed contexts (Levy, Goldberg and Dagan 2015)."""
    counts = counts.tocoo()
    row_sums = np.asarray(counts.sum(axis=1)).ravel()
    contexts = np.asarray(counts.sum(axis=0)).ravel() ** smoothing
    contexts /= contexts.sum()
    information = np.log(counts.data / row_sums[counts.row] / contexts[counts.col])
    keep = information > 0
    return sp.csr_matrix((information[keep], (counts.row[keep], counts.col[keep])), shape=counts.shape)


def svd_vectors(matrix: sp.csr_matrix, n_dims: int, seed: int) -> np.ndarray:
    """Rows of U·√Σ of the truncated SVD, each of unit length (zero rows stay zero): float64 [V, n_dims]."""
    u, sigma, _ = svds(matrix, k=n_dims, rng=np.random.default_rng(seed))
    return unit_rows(u * np.sqrt(sigma))


def unit_rows(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)


def learn_vectors(
    captions: list[tuple[int, list[str]]],
    lemmas: dict[str, str],
    seed: int,
    n_dims: tuple[int, int] = (WINDOW_DIMS, IMAGE_DIMS),
) -> tuple[dict[str, int], np.ndarray]:
    """Learn vectors of lower-case words: {word: row}, float32 [V, sum(n_dims)].

    The two parts of a vector say which words stand beside the word, and which images it describes. Its length
    is 0.01 / (0.01 + the word's frequency) (Arora et al. 2017): in a phrase's mean *a* and *of* hardly count.
    """
    sentences = [words for _, words in captions]
    counts = Counter(word for sentence in sentences for word in sentence)
    rows = {word: row for row, word in enumerate(sorted(counts, key=lambda word: (-counts[word], word)))}
    singular = singulars(rows, lemmas)
    window = add_singulars(window_counts(sentences, rows, window=2), rows, singular)
    image = add_singulars(image_counts(captions, rows), rows, singular)
    parts = [
        svd_vectors(ppmi(window), n_dims[0], seed),
        svd_vectors(ppmi(image, smoothing=1.0), n_dims[1], seed) * IMAGE_WEIGHT,
    ]
    frequency = np.array([counts[word] for word in rows]) / counts.total()
    length = 0.01 / (0.01 + frequency)
    return rows, (unit_rows(np.hstack(parts)) * length[:, None]).astype(np.float32)


def set_vectors(nlp: Language, rows: dict[str, int], table: np.ndarray) -> None:
    """Give the vocabulary the vectors; "Dog" and "DOG" share the row of "dog"."""
    vectors = Vectors(strings=nlp.vocab.strings, shape=table.shape, name="captions_ppmi_svd")
    vectors.data[:] = table
    for form in (str.upper, str.capitalize, str.lower):  # the last one wins where two are equal
        for word, row in rows.items():
            vectors.add(nlp.vocab.strings.add(form(word)), row=row)
    nlp.vocab.vectors = vectors


# --- scores


def score_pipeline(nlp: Language, examples: list[Example]) -> dict[str, float]:
    """Accuracy of tags, lemmas and arcs (without punctuation), F1 of sentences and chunks; on raw text."""
    docs = nlp.pipe(example.text for example in examples)
    parsed = [Example(doc, example.reference) for doc, example in zip(docs, examples, strict=True)]
    scores = Scorer(nlp).score(parsed)
    names = {"pos_acc": "pos", "tag_acc": "tag", "lemma_acc": "lemma", "dep_uas": "uas", "dep_las": "las"}
    named = {name: scores[key] for key, name in names.items()}
    return {**named, "sentence_f": scores["sents_f"], "chunk_f": chunk_f(parsed)}


def chunk_f(examples: list[Example]) -> float:
    """F1 of noun chunks with exact character boundaries."""
    found = gold = right = 0
    for example in examples:
        docs = (example.predicted, example.reference)
        spans = [{(chunk.start_char, chunk.end_char) for chunk in doc.noun_chunks} for doc in docs]
        found, gold, right = found + len(spans[0]), gold + len(spans[1]), right + len(spans[0] & spans[1])
    return 2 * right / (found + gold)


def score_categories(nlp: Language, categories: list[str]) -> dict[str, Any]:
    """How often the nearest category name, by cosine of `Doc.vector`, is that of `CATEGORY_WORDS`."""
    names = unit_rows(np.stack([nlp.make_doc(name).vector for name in categories]))
    right, wrong, unknown = 0, {}, []
    for category, words in CATEGORY_WORDS.items():
        for word in words.split():
            vector = nlp.make_doc(word).vector
            if not vector.any():
                unknown.append(word)
                continue
            nearest = categories[int(np.argmax(names @ vector))]
            right += nearest == category
            if nearest != category:
                wrong[word] = nearest
    return {
        "top1": right / (right + len(wrong)),
        "words": right + len(wrong),
        "wrong": wrong,
        "unknown": unknown,
    }


def score_pairs(nlp: Language) -> dict[str, float]:
    """Cosines of a few word pairs, to be read by eye."""
    pairs = ["man woman", "man person", "puppy dog", "sofa couch", "bike bicycle", "dog cat", "dog car"]
    docs = [nlp.make_doc(pair) for pair in pairs]
    return {doc.text: round(doc[0].similarity(doc[1]), 3) for doc in docs}


# --- the recipe


def add_vectors(nlp: Language, captions: list[tuple[int, str]], seed: int) -> None:
    """Learn word vectors from the captions; which words are plurals the pipeline itself says."""
    docs = list(nlp.pipe((text for _, text in captions), batch_size=256))
    words = [(image, [token.lower_ for token in doc]) for (image, _), doc in zip(captions, docs, strict=True)]
    plurals: dict[str, Counter[str]] = {}
    for token in (token for doc in docs for token in doc if token.tag_ == "NNS"):
        plurals.setdefault(token.lower_, Counter())[token.lemma_.lower()] += 1
    lemmas = {word: counts.most_common(1)[0][0] for word, counts in plurals.items()}
    set_vectors(nlp, *learn_vectors(words, lemmas, seed))


def describe(nlp: Language) -> None:
    """Fill in the meta data that goes to `meta.json`."""
    captions = {
        "name": "COCO captions 2017",
        "url": "https://cocodataset.org",
        "license": "CC BY 4.0",
        "author": "COCO Consortium",
    }
    nlp.meta.update(
        name="embedded_phrases",
        version="2.0.0",
        description="en_core_web_sm 3.8.0 of Explosion, without names of entities, with word vectors learned from "
        "captions.",
        license="MIT",
        sources=[*nlp.meta.get("sources", ()), captions],
    )


def folder_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def evaluate(nlp: Language, data: Path, categories: list[str]) -> dict[str, Any]:
    """All scores that go to the report."""
    return {
        "scores": {part: score_pipeline(nlp, as_examples(nlp, load_trees(data, part))) for part in ("dev", "test")},
        "categories": score_categories(nlp, categories),
        "cosines": score_pairs(nlp),
    }


def save(nlp: Language, report: dict[str, Any], out: Path) -> None:
    """Write the pipeline and, beside it, `training.json`; print that."""
    describe(nlp)
    nlp.to_disk(out)
    started = time.monotonic()
    spacy.load(out)
    report["load_seconds"] = round(time.monotonic() - started, 2)
    report["size_mb"] = round(folder_mb(out), 1)
    text = json.dumps(report, indent=2)
    (out / "training.json").write_text(text + "\n")
    print(text)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=default_data_dir(), help="default: $AAS_SHARED/data")
    options.add_argument("--parts", type=Path, required=True, help="folder that parts.py wrote")
    options.add_argument("--out", type=Path, default=Path("checkpoints/embedded/phrases"))
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()

    nlp = spacy.load(args.parts / "en_core_web_sm", exclude=NOT_NEEDED)
    captions, categories = load_captions(args.data), load_categories(args.data)
    add_vectors(nlp, captions, args.seed)
    made = {"seed": args.seed, "captions": len(captions), "vectors": list(nlp.vocab.vectors.shape)}
    save(nlp, {"made": made} | evaluate(nlp, args.data, categories), args.out)
    for name in LICENCES:
        shutil.copy(args.parts / "en_core_web_sm" / name, args.out / name)


if __name__ == "__main__":
    main()
