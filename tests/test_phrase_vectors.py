"""The treebank conversion and the word vectors of `scripts/embedded/make_phrases.py`."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import spacy

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "embedded"))

import make_phrases
import treebank

COPULA_AND_CASE = """
1 She she PRON PRP _ 5 nsubj
2 is be AUX VBZ _ 5 cop
3 on on ADP IN _ 5 case
4 a a DET DT _ 5 det
5 boat boat NOUN NN _ 0 root
6 . . PUNCT . _ 5 punct
"""
ADJECTIVE = """
1 Dogs dog NOUN NNS _ 3 nsubj
2 are be AUX VBP _ 3 cop
3 nice nice ADJ JJ _ 0 root
4 . . PUNCT . _ 3 punct
"""
NOMINAL_PREDICATE = """
1 It it PRON PRP _ 5 nsubj
2 was be AUX VBD _ 5 cop
3 not not PART RB _ 5 advmod
4 a a DET DT _ 5 det
5 dog dog NOUN NN _ 0 root
6 , , PUNCT , _ 9 punct
7 but but CCONJ CC _ 9 cc
8 it it PRON PRP _ 9 nsubj
9 barked bark VERB VBD _ 5 conj
10 . . PUNCT . _ 5 punct
"""
CONJUNCTS = """
1 A a DET DT _ 2 det
2 man man NOUN NN _ 3 nsubj
3 eats eat VERB VBZ _ 0 root
4 apples apple NOUN NNS _ 3 obj
5 , , PUNCT , _ 7 punct
6 ripe ripe ADJ JJ _ 7 amod
7 figs fig NOUN NNS _ 4 conj
8 and and CCONJ CC _ 9 cc
9 bread bread NOUN NN _ 4 conj
10 out out ADP IN _ 13 case
11 of of ADP IN _ 13 case
12 a a DET DT _ 13 det
13 box box NOUN NN _ 3 obl
"""
FLAT_NAME = """
1 Old old ADJ JJ _ 2 amod
2 Mary Mary PROPN NNP _ 5 nsubj
3 Ann Ann PROPN NNP _ 2 flat
4 Lee Lee PROPN NNP _ 2 flat
5 sleeps sleep VERB VBZ _ 0 root
"""
FRAGMENT = """
1 Yes yes INTJ UH _ 4 discourse
2 , , PUNCT , _ 4 punct
3 a a DET DT _ 4 det
4 dog dog NOUN NN _ 0 root
"""
CROSSING = """
1 Dogs dog NOUN NNS _ 3 nsubj
2 today today NOUN NN _ 4 obl
3 like like VERB VBP _ 0 root
4 eating eat VERB VBG _ 3 xcomp
"""


def read(rows: str) -> treebank.Tree:
    """A tree from rows of CoNLL-U up to the relation, with spaces for tabs."""
    conllu = "\n".join("\t".join([*row.split(), "_", "_"]) for row in rows.strip().split("\n"))
    [[tree]] = treebank.parse_paragraphs(conllu)
    return tree


def arcs(tree: treebank.Tree) -> list[str]:
    """Each word's "label head", the root's "ROOT"."""
    return [f"{w.dep} {tree[w.head].form}" if w.head != treebank.ROOT else w.dep for w in tree]


def chunks(tree: treebank.Tree) -> list[str]:
    return [chunk.text for chunk in treebank.to_doc(spacy.blank("en").vocab, [tree]).noun_chunks]


@pytest.mark.parametrize(
    ("rows", "expected_arcs", "expected_chunks"),
    [
        (COPULA_AND_CASE, "nsubj is|ROOT|prep is|det boat|pobj on|punct is", "She|a boat"),
        (ADJECTIVE, "nsubj are|ROOT|acomp are|punct are", "Dogs"),
        (
            NOMINAL_PREDICATE,
            "nsubj was|ROOT|neg was|det dog|attr was|punct was|cc was|nsubj barked|conj was|punct was",
            "It|a dog|it",
        ),
        (
            CONJUNCTS,
            "det man|nsubj eats|ROOT|dobj eats|punct apples|amod figs|conj apples|cc figs|conj figs"
            "|prep eats|prep out|det box|pobj of",
            "A man|apples|ripe figs|bread|a box",
        ),
        (FLAT_NAME, "amod Lee|compound Lee|compound Lee|nsubj sleeps|ROOT", "Old Mary Ann Lee"),
        (FRAGMENT, "ROOT|punct Yes|det dog|attr Yes", "a dog"),
        (CROSSING, "nsubj like|npadvmod like|ROOT|xcomp like", "Dogs"),
    ],
)
def test_conversion(rows: str, expected_arcs: str, expected_chunks: str) -> None:
    tree = treebank.convert(read(rows))
    assert "|".join(arcs(tree)) == expected_arcs
    assert "|".join(chunks(tree)) == expected_chunks


def test_reading_ranges_empty_nodes_and_paragraphs() -> None:
    conllu = """# newpar
1-2 Don't _ _ _ _ _ _ _ SpaceAfter=No
1 Do do AUX VB _ 0 root _ _
2 n't not PART RB _ 1 advmod _ _
2.1 go go VERB VB _ _ _ _ _
3 ! ! PUNCT . _ 1 punct _ _

# newpar
1 Go go VERB VB _ 0 root _ _
"""
    first, second = treebank.parse_paragraphs(re.sub(r"(?<=\S) (?!newpar)", "\t", conllu))
    assert treebank.to_doc(spacy.blank("en").vocab, first).text.strip() == "Don't!"
    assert [word.form for word in second[0]] == ["Go"]


def toy_vectors() -> spacy.language.Language:
    """Vectors of a made-up corpus: animals sleep and eat, vehicles drive and park; images show one kind."""
    animals = [(0, f"the {a} {v} here".split()) for a in ("dog", "puppy", "cats", "cat") for v in ("sleeps", "eats")]
    vehicles = [(1, f"a {a} {v} fast".split()) for a in ("car", "truck") for v in ("drives", "parks")]
    nlp = spacy.blank("en")
    lemmas = {"mice": "mouse"}
    learned = make_phrases.learn_vectors(animals + vehicles, lemmas, 0, n_dims=(4, 1))
    make_phrases.set_vectors(nlp, *learned)
    return nlp


def test_vectors_bring_words_with_the_same_neighbours_together() -> None:
    nlp = toy_vectors()
    dog, puppy, car = nlp("dog puppy car")
    assert dog.similarity(puppy) > 0.9
    assert dog.similarity(car) < 0.5


def test_vectors_of_capitals_phrases_and_unknown_words() -> None:
    nlp = toy_vectors()
    lower, capitalised, upper, unknown = nlp("dog Dog DOG zzz")
    assert np.array_equal(lower.vector, capitalised.vector)
    assert np.array_equal(lower.vector, upper.vector)
    assert not unknown.has_vector
    assert np.isfinite(nlp("the Dog sleeps").vector).all()


def test_ppmi_of_independent_words_is_zero() -> None:
    counts = make_phrases.sp.csr_matrix(np.array([[4.0, 4.0], [4.0, 4.0], [8.0, 0.0]]))
    information = make_phrases.ppmi(counts, smoothing=1.0).toarray()
    assert information[0, 0] == 0  # seen less often than by chance
    assert information[2, 0] == pytest.approx(np.log(1 / (16 / 24)))


def test_singulars() -> None:
    words = ["dog", "dogs", "glass", "glas", "bus", "buses", "lady", "ladies", "man", "men", "gas"]
    found = make_phrases.singulars(words, {"men": "man"})
    assert found == {"dogs": "dog", "buses": "bus", "ladies": "lady", "men": "man"}
