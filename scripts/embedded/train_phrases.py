"""Train the embedded phrases model: a small spaCy pipeline for noun phrases of captions, with vectors.

    python scripts/embedded/train_phrases.py --data DIR --out checkpoints/embedded/phrases

1. UD English EWT becomes ClearNLP-style trees (`treebank.py`), with copies that look like captions.
2. Word vectors come from the COCO captions and the treebank: PPMI and truncated SVD. They serve `Doc.vector`
   and are an input of the tagger and parser, which so get to know caption words that the treebank lacks.
3. tok2vec, tagger, morphologizer (`pos_`), parser and edit-tree lemmatizer are trained together, on one core.
4. Training goes on with what captions are made of: clauses of the treebank turned into fragments ("a man rides
   a wave" into "A man riding a wave."), also with nouns swapped for names of COCO's categories.

DIR holds `ewt/en_ewt-ud-{train,dev,test}.conllu.gz` and `coco/annotations/{captions,instances}_*.json`.
"""

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import spacy
from scipy.sparse.linalg import svds
from spacy.language import Language
from spacy.scorer import Scorer
from spacy.training import Example
from spacy.training.batchers import minibatch_by_words
from spacy.vectors import Vectors
from split import kept_out
from thinc.api import Adam, Model
from thinc.schedules import compounding, warmup_linear
from treebank import (
    CHUNK_LABELS,
    ROOT,
    Tree,
    Word,
    attach,
    children,
    convert,
    read_paragraphs,
    subtree,
    to_doc,
)

progress = partial(print, file=sys.stderr, flush=True)

WIDTH = 96  # of tok2vec
WINDOW_DIMS, IMAGE_DIMS, IMAGE_WEIGHT = 60, 40, 0.8  # of the word vectors
ADAPT_STEPS = 700  # of each run of the second stage
MIN_COUNT = 2  # of a treebank word that gets a vector; all words of captions do

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


def training_texts(paragraphs: list[list[Tree]], rng: random.Random) -> Iterator[list[Tree]]:
    """Yield the trees of each `Doc`: paragraphs, some joined by newlines, and caption-like sentences."""
    previous: list[Tree] = []
    for paragraph in paragraphs:
        if rng.random() < 0.3:  # answers of LMMs have newlines, the treebank has none
            previous = [*previous, *end_with_newline(paragraph, rng.choice(["\n", "\n\n"]))]
            continue
        yield [*previous, *paragraph]
        previous = []
        for tree in paragraph:
            if 3 <= len(tree) <= 40:
                yield [caption_like(tree, rng)]
    if previous:
        yield previous


def end_with_newline(paragraph: list[Tree], newline: str) -> list[Tree]:
    """A copy whose last sentence ends in a whitespace token, as spaCy's tokenizer makes of newlines."""
    *rest, last = paragraph
    token = Word(newline, newline, "SPACE", "_SP", len(last) - 1, "dep", space_after=False)
    return [*rest, [*last[:-1], replace(last[-1], space_after=False), token]]


def caption_like(tree: Tree, rng: random.Random) -> Tree:
    """A copy in lower case, without the final period, or both: captions come in all these forms."""
    lower, bare = rng.choice([(True, False), (False, True), (True, True)])
    is_leaf = all(word.head != len(tree) - 1 for word in tree)
    if bare and tree[-1].form == "." and is_leaf:
        tree = tree[:-1]
    if lower:
        tree = [replace(word, form=word.form.lower(), lemma=word.lemma.lower()) for word in tree]
    return tree


def fragments(tree: Tree, participles: dict[str, str]) -> Iterator[Tree]:
    """Yield what captions are made of, "a man riding a wave", from every clause whose subject is a noun.

    `participles` maps lemmas to their -ing forms; a passive keeps its own ("a car parked by a truck").
    """
    kept = {"dobj", "dative", "prep", "agent", "prt", "advmod", "npadvmod", "oprd"}
    for verb, word in enumerate(tree):
        dependents = children(tree, verb)
        subjects = [i for i in dependents if i < verb and tree[i].relation in {"nsubj", "nsubjpass"}]
        after = [i for i in dependents if i > verb and tree[i].dep in kept]
        passive = any(tree[i].dep == "auxpass" for i in dependents)
        form = word.form if passive else participles.get(word.lemma)
        if word.pos == "VERB" and form and after and subjects and tree[subjects[0]].pos in {"NOUN", "PROPN"}:
            fragment = [replace(word) for word in tree]
            fragment[verb] = replace(word, form=form, tag="VBN" if passive else "VBG", space_after=True)
            attach(fragment, verb, subjects[0], "acl")
            attach(fragment, subjects[0], ROOT, "ROOT")
            branches = [subtree(tree, child) for child in (subjects[0], *after)]
            yield extract(fragment, sorted([verb, *(i for branch in branches for i in branch)]))


def extract(tree: Tree, places: list[int]) -> Tree:
    """The tree of some of the words; a head that is left out leaves a root."""
    new = {old: i for i, old in enumerate(places)}
    return [replace(tree[old], head=new.get(tree[old].head, ROOT)) for old in places]


def fragment_texts(trees: list[Tree], names: list[str], share: float, rng: random.Random) -> Iterator[list[Tree]]:
    """Yield the fragments of all trees, but the shortest and longest, once as a sentence and once as a caption.

    A share of the captions' nouns become `names`: the treebank hardly mentions surfboards and stop signs.
    """
    participles = {word.lemma: word.form.lower() for tree in trees for word in tree if word.tag == "VBG"}
    for fragment in (fragment for tree in trees for fragment in fragments(tree, participles)):
        if 4 <= len(fragment) <= 25:
            swapped = swap_nouns(fragment, names, share, rng) if share else fragment
            yield [with_period(fragment)]
            yield [caption_like(with_period(swapped), rng)]


def swap_nouns(tree: Tree, names: list[str], share: float, rng: random.Random) -> Tree:
    """A copy in which a share of the singular nouns that stand alone are random ones of `names` ("stop sign")."""
    compounds = {word.head for word in tree if word.dep == "compound"}
    parts = [[word] for word in tree]
    for i, word in enumerate(tree):
        if word.tag == "NN" and word.dep in CHUNK_LABELS and i not in compounds and rng.random() < share:
            *modifiers, noun = rng.choice(names).split()
            parts[i] = [name_modifier(form, i) for form in modifiers] + [replace(word, form=noun, lemma=noun)]
    ends = list(accumulate(len(part) for part in parts))  # heads of parts are their last words
    return [replace(word, head=ends[word.head] - 1 if word.head != ROOT else ROOT) for part in parts for word in part]


def name_modifier(form: str, head: int) -> Word:
    """The *stop* of "stop sign"; the COCO names have two adjectives."""
    if form in {"hot", "potted"}:
        return Word(form, form, "ADJ", "JJ", head, "amod")
    return Word(form, form, "NOUN", "NN", head, "compound")


def with_period(tree: Tree) -> Tree:
    """A copy that begins with a capital and ends with a period."""
    root = next(i for i, word in enumerate(tree) if word.head == ROOT)
    first, rest = tree[0], tree[1:]
    capital = replace(first, form=first.form[:1].upper() + first.form[1:])
    return [
        capital,
        *rest[:-1],
        replace(rest[-1], space_after=False),
        Word(".", ".", "PUNCT", ".", root, "punct"),
    ]


def as_examples(nlp: Language, texts: Iterable[list[Tree]]) -> list[Example]:
    """Pair raw text with gold annotation, so that training and scores include the tokenizer's errors."""
    golds = [to_doc(nlp.vocab, trees) for trees in texts]
    return [Example(nlp.make_doc(gold.text), gold) for gold in golds]


# --- word vectors


def choose_vocabulary(counts: Counter[str], min_count: int, required: set[str]) -> dict[str, int]:
    """Map words to rows, by falling frequency; rarer words than `min_count` only where required."""
    words = [word for word, n in counts.items() if n >= min_count or word in required]
    by_frequency = sorted(words, key=lambda word: (-counts[word], word))
    return {word: row for row, word in enumerate(by_frequency)}


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
    sentences: list[list[str]],
    lemmas: dict[str, str],
    seed: int,
    n_dims: tuple[int, int] = (WINDOW_DIMS, IMAGE_DIMS),
) -> tuple[dict[str, int], np.ndarray]:
    """Learn vectors of lower-case words: {word: row}, float32 [V, sum(n_dims)].

    The two parts of a vector say which words stand beside the word, and which images it describes. Its length
    is 0.01 / (0.01 + the word's frequency) (Arora et al. 2017): in a phrase's mean *a* and *of* hardly count.
    """
    sentences = [words for _, words in captions] + sentences
    counts = Counter(word for sentence in sentences for word in sentence)
    rows = choose_vocabulary(counts, MIN_COUNT, required={word for _, words in captions for word in words})
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


# --- pipeline


def build_pipeline(nlp: Language) -> None:
    """Add the components; all read one shared tok2vec."""
    embed = {
        "@architectures": "spacy.MultiHashEmbed.v2",
        "width": WIDTH,
        "attrs": ["NORM", "PREFIX", "SUFFIX", "SHAPE"],
        "rows": [5000, 1000, 2500, 1000],
        "include_static_vectors": True,
    }
    encode = {
        "@architectures": "spacy.MaxoutWindowEncoder.v2",
        "width": WIDTH,
        "depth": 4,
        "window_size": 1,
        "maxout_pieces": 3,
    }
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": WIDTH, "upstream": "tok2vec"}
    tagger = {"@architectures": "spacy.Tagger.v2", "tok2vec": listener}
    parser = {
        "@architectures": "spacy.TransitionBasedParser.v2",
        "state_type": "parser",
        "extra_state_tokens": False,
        "hidden_width": 64,
        "maxout_pieces": 2,
        "use_upper": True,
        "tok2vec": listener,
    }
    tok2vec = {"@architectures": "spacy.Tok2Vec.v2", "embed": embed, "encode": encode}
    nlp.add_pipe("tok2vec", config={"model": tok2vec})
    nlp.add_pipe("tagger", config={"model": tagger})
    nlp.add_pipe("morphologizer", config={"model": tagger})
    # The default min_action_freq of 30 drops rare labels, and so chunks, on a treebank of this size.
    nlp.add_pipe("parser", config={"model": parser, "min_action_freq": 5})
    nlp.add_pipe("trainable_lemmatizer", name="lemmatizer", config={"model": tagger})


def batches(examples: list[Example], rng: random.Random) -> Iterator[list[Example]]:
    """Endless batches of 300, later 700, words."""

    def stream() -> Iterator[Example]:
        while True:
            yield from rng.sample(examples, len(examples))

    return minibatch_by_words(stream(), size=compounding(300, 700, 1.001))


def train(nlp: Language, examples: list[Example], steps: int, learn_rate: float, rng: random.Random) -> None:
    """Update an initialized pipeline `steps` times and leave the averaged weights in it."""
    optimizer = Adam(
        warmup_linear(learn_rate, 100, steps),
        L2=0.01,
        grad_clip=1.0,
        L2_is_weight_decay=True,
        use_averages=True,
    )
    losses: dict[str, float] = {}
    started = time.monotonic()
    for step, batch in zip(range(1, steps + 1), batches(examples, rng), strict=False):
        nlp.update(batch, sgd=optimizer, drop=0.15, losses=losses)
        optimizer.step_schedules()
        if step % 100 == 0:
            shown = ", ".join(f"{name} {loss / 100:.1f}" for name, loss in losses.items())
            progress(f"step {step}, {time.monotonic() - started:.0f} s, mean loss: {shown}")
            losses = {}
    with nlp.use_params(optimizer.averages):
        averaged = nlp.to_bytes(exclude=["vocab"])
    nlp.from_bytes(averaged, exclude=["vocab"])


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


def describe(nlp: Language) -> None:
    """Fill in the meta data that goes to `meta.json`."""
    nlp.meta.update(
        name="embedded_phrases",
        version="1.0.0",
        spacy_version=">=3.8.0,<4.0.0",
        description="Noun phrases of image captions: ClearNLP-style dependencies converted from Universal "
        "Dependencies, and word vectors learned from captions.",
        author="aas contributors",
        license="CC BY-SA 4.0",
        sources=[
            {
                "name": "UD English EWT v2.15",
                "url": "https://github.com/UniversalDependencies/UD_English-EWT",
                "license": "CC BY-SA 4.0",
                "author": "The Board of Trustees of The Leland Stanford Junior University, and others",
            },
            {
                "name": "COCO captions 2017",
                "url": "https://cocodataset.org",
                "license": "CC BY 4.0",
                "author": "COCO Consortium",
            },
        ],
    )


def folder_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def add_vectors(nlp: Language, captions: list[tuple[int, str]], trees: list[Tree], seed: int) -> None:
    """Learn word vectors from the captions and the treebank's words."""
    words = [(image, [token.lower_ for token in nlp.make_doc(text)]) for image, text in captions]
    sentences = [[word.form.lower() for word in tree] for tree in trees]
    lemmas = {word.form.lower(): word.lemma.lower() for tree in trees for word in tree if word.tag == "NNS"}
    set_vectors(nlp, *learn_vectors(words, sentences, lemmas, seed))
    progress(f"{len(captions)} captions, vectors {nlp.vocab.vectors.shape}")


def train_on_treebank(nlp: Language, paragraphs: list[list[Tree]], steps: int, seed: int) -> list[Example]:
    """First stage: build the pipeline, train it on the converted trees and return its examples."""
    spacy.util.fix_random_seed(seed)
    rng = random.Random(seed)
    build_pipeline(nlp)
    examples = as_examples(nlp, training_texts(paragraphs, rng))
    nlp.initialize(lambda: examples)
    train(nlp, examples, steps, 1.5e-3, rng)
    return examples


def adapt_to_captions(
    nlp: Language, examples: list[Example], trees: list[Tree], names: list[str], steps: int, seed: int
) -> None:
    """Second stage: go on twice from here, with the trees' fragments too, and average the weights.

    One run keeps the fragments' nouns, the other swaps half of them for `names`. Their average is better than both
    (a "model soup", Wortsman et al. 2022).
    """
    start = nlp.to_bytes(exclude=["vocab"])
    runs = []
    for share in (0.0, 0.5):
        nlp.from_bytes(start, exclude=["vocab"])
        spacy.util.fix_random_seed(seed)
        rng = random.Random(seed)
        train(nlp, examples + as_examples(nlp, fragment_texts(trees, names, share, rng)), steps, 1e-3, rng)
        runs.append([node.get_param(name).copy() for node, name in parameters(nlp)])
    for (node, name), *values in zip(parameters(nlp), *runs, strict=True):
        node.set_param(name, sum(values) / len(values))


def parameters(nlp: Language) -> list[tuple[Model, str]]:
    """Where all weights of the pipeline are, in a fixed order."""
    nodes = [node for _, pipe in nlp.pipeline for node in pipe.model.walk()]
    return [(node, name) for node in nodes for name in node.param_names if node.has_param(name)]


def build(data: Path, seed: int, steps: int) -> tuple[Language, dict[str, Any]]:
    """Train a pipeline; also return what is known about the training, and its scores."""
    paragraphs = {part: load_trees(data, part) for part in ("train", "dev", "test")}
    trees = {part: [tree for paragraph in paragraphs[part] for tree in paragraph] for part in paragraphs}
    captions, categories = load_captions(data), load_categories(data)
    nlp = spacy.blank("en")
    add_vectors(nlp, captions, trees["train"] + trees["dev"], seed)
    started = time.monotonic()
    first = train_on_treebank(nlp, paragraphs["train"], steps, seed)
    adapt_to_captions(nlp, first, trees["train"], categories, ADAPT_STEPS, seed + 1)
    training = {
        "seed": seed,
        "steps": [steps, ADAPT_STEPS, ADAPT_STEPS],
        "seconds": round(time.monotonic() - started),
        "sentences": len(trees["train"]),
        "documents": len(first),
        "captions": len(captions),
        "vectors": list(nlp.vocab.vectors.shape),
    }
    return nlp, {"training": training, **evaluate(nlp, paragraphs, categories)}


def evaluate(nlp: Language, paragraphs: dict[str, list[list[Tree]]], categories: list[str]) -> dict[str, Any]:
    """All scores that go to the report."""
    return {
        "scores": {part: score_pipeline(nlp, as_examples(nlp, paragraphs[part])) for part in ("dev", "test")},
        "categories": score_categories(nlp, categories),
        "cosines": score_pairs(nlp),
    }


def save(nlp: Language, report: dict[str, Any], out: Path) -> None:
    """Write the pipeline and, beside it, `training.json`; print that."""
    describe(nlp)
    nlp.meta["performance"] = report["scores"]["test"]
    nlp.to_disk(out)
    started = time.monotonic()
    spacy.load(out)
    report["load_seconds"] = round(time.monotonic() - started, 2)
    report["size_mb"] = round(folder_mb(out), 1)
    text = json.dumps(report, indent=2)
    (out / "training.json").write_text(text + "\n")
    print(text)


def main() -> None:
    shared = Path(os.environ.get("AAS_SHARED", "../shared"))
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=shared / "data", help="default: $AAS_SHARED/data")
    options.add_argument("--out", type=Path, default=Path("checkpoints/embedded/phrases"))
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--steps", type=int, default=3500)
    args = options.parse_args()

    save(*build(args.data, args.seed, args.steps), args.out)


if __name__ == "__main__":
    main()
