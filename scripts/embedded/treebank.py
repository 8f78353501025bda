"""Universal Dependencies trees as the ClearNLP-style trees that spaCy's English `noun_chunks` understands.

UD makes content words heads: in "she is on a boat" the root is *boat*, with *is* (`cop`) and *on* (`case`)
as its children. spaCy yields `left_edge … word` of every noun that has one of `CHUNK_LABELS`, so on a UD
tree the chunk would be "she is on a boat". ClearNLP makes function words heads: *is*, *on*, *boat*.
`convert` turns one into the other, one rule per function, in an order that matters.

Read: UD English EWT v2.15 (CC BY-SA 4.0) in CoNLL-U, https://universaldependencies.org/format.html.
"""

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from spacy.tokens import Doc
from spacy.vocab import Vocab

NOMINAL = {"NOUN", "PROPN", "PRON"}
CHUNK_LABELS = {
    *("nsubj", "nsubjpass", "dobj", "dative", "pobj", "pcomp", "attr", "oprd", "appos", "ROOT"),
}  # as in spacy.lang.en.syntax_iterators
CHUNK_MODIFIERS = {
    *("det", "predet", "preconj", "amod", "compound", "nummod", "quantmod", "poss", "case", "neg"),
    *("advmod", "npadvmod", "fixed"),
}  # what may stand left of a noun inside its chunk
SUBJECTS = {"nsubj", "csubj"}
ROOT = -1  # the head index of a root

PLAIN_LABELS = {  # UD relation -> ClearNLP label, where no context is needed; others keep their name
    "root": "ROOT",
    "obj": "dobj",
    "iobj": "dative",
    "nsubj:pass": "nsubjpass",
    "csubj:pass": "csubjpass",
    "aux:pass": "auxpass",
    "nsubj:outer": "nsubj",
    "csubj:outer": "csubj",
    "acl:relcl": "relcl",
    "advcl:relcl": "relcl",
    "compound:prt": "prt",
    "nmod:poss": "poss",
    "det:predet": "predet",
    "cc:preconj": "preconj",
    "discourse": "intj",
    "vocative": "npadvmod",
    "list": "parataxis",
    "orphan": "dep",
    "dislocated": "dep",
    "reparandum": "dep",
}


@dataclass
class Word:
    """One syntactic word. `head` is an index into the sentence, or `ROOT`."""

    form: str
    lemma: str
    pos: str  # universal part of speech
    tag: str  # Penn Treebank tag
    head: int
    dep: str
    space_after: bool = True

    @property
    def relation(self) -> str:
        """The relation without its subtype: `nsubj` of `nsubj:pass`."""
        return self.dep.partition(":")[0]


Tree = list[Word]


# --- reading


def read_paragraphs(path: Path) -> Iterator[list[Tree]]:
    """Yield the paragraphs of a gzipped CoNLL-U file, each a list of unconverted trees."""
    yield from parse_paragraphs(gzip.decompress(path.read_bytes()).decode("utf-8"))


def parse_paragraphs(conllu: str) -> Iterator[list[Tree]]:
    """Split CoNLL-U text at `# newdoc` and `# newpar` into lists of trees."""
    paragraph: list[Tree] = []
    for block in filter(None, conllu.strip().split("\n\n")):
        lines = block.strip().split("\n")
        starts_new = any(line.startswith(("# newdoc", "# newpar")) for line in lines)
        if starts_new and paragraph:
            yield paragraph
            paragraph = []
        paragraph.append(parse_sentence([line for line in lines if not line.startswith("#")]))
    if paragraph:
        yield paragraph


def parse_sentence(lines: list[str]) -> Tree:
    """Read one sentence; empty nodes ("8.1") are dropped, multi-word ranges ("2-3") only decide on spaces."""
    tree: Tree = []
    range_end, range_space = 0, True
    for line in lines:
        number, form, lemma, pos, tag, _, head, dep, _, misc = line.split("\t")
        space_after = "SpaceAfter=No" not in misc
        if "." in number:
            continue
        if "-" in number:
            range_end, range_space = int(number.split("-")[1]), space_after
            continue
        if int(number) <= range_end:
            space_after = range_space if int(number) == range_end else False
        lemma = form if lemma == "_" and form != "_" else lemma
        tree.append(Word(form, lemma, pos, tag, int(head) - 1, dep, space_after))
    return tree


# --- converting


def convert(ud: Tree) -> Tree:
    """Return a projective ClearNLP-style copy of one UD tree."""
    tree = [replace(word) for word in ud]
    for rule in (promote_last_flat, promote_copulas, promote_adpositions, relabel, chain_conjuncts):
        rule(tree)
    projectivise(tree)
    trim_left_edges(tree)
    while demote_nominal_root(tree):
        trim_left_edges(tree)
    projectivise(tree)
    return tree


def children(tree: Tree, head: int) -> list[int]:
    """Indices of the dependents of `head`, left to right."""
    return [i for i, word in enumerate(tree) if word.head == head]


def attach(tree: Tree, child: int, head: int, dep: str | None = None) -> None:
    """Give `child` a new head and, if stated, a new label."""
    tree[child].head = head
    tree[child].dep = dep or tree[child].dep


def promote_last_flat(tree: Tree) -> None:
    """Names: "Shaikh Abdullah Ani" is headed by its first word in UD, by its last in ClearNLP."""
    for old in range(len(tree)):
        flats = [i for i in children(tree, old) if tree[i].relation == "flat"]
        nominals = [i for i in flats if tree[i].pos in NOMINAL]
        if not nominals:
            continue
        new = nominals[-1]
        attach(tree, new, tree[old].head, tree[old].dep)
        for child in children(tree, old):
            attach(tree, child, new, "compound" if child in flats else None)
        attach(tree, old, new, "compound")


def promote_copulas(tree: Tree) -> None:
    """ "She is a doctor": *is* takes the place of *doctor*, which becomes its `attr`."""
    for predicate in range(len(tree)):
        copulas = [i for i in children(tree, predicate) if tree[i].relation == "cop"]
        if not copulas:
            continue
        subjects = [tree[i].dep for i in children(tree, predicate) if tree[i].relation in SUBJECTS]
        outer = any(dep.endswith(":outer") for dep in subjects)
        if outer and len(copulas) > 1:  # "the problem is that she is a doctor"
            promote_copula(tree, predicate, copulas[-1], keep=copulas[:-1])
            promote_clausal_copula(tree, copulas[-1], copulas[0])
        elif outer and (len(subjects) > 1 or is_verb(tree[predicate])):  # "the plan is to win"
            promote_clausal_copula(tree, predicate, copulas[0])
        else:
            promote_copula(tree, predicate, copulas[0])


def promote_copula(tree: Tree, predicate: int, copula: int, keep: Sequence[int] = ()) -> None:
    """Swap a predicate with its copula; the clause's own dependents (subject, auxiliaries …) follow.

    `keep` are outer copulas, which `promote_clausal_copula` looks for below the clause's new head.
    """
    dependents = [i for i in children(tree, predicate) if i != copula]
    swap_with_copula(tree, predicate, copula, predicate_label(tree, predicate))
    for child in dependents:
        if child in keep or belongs_to_copula(tree, child, predicate, copula):
            attach(tree, child, copula)
    move_final_punctuation(tree, predicate, copula)


def promote_clausal_copula(tree: Tree, predicate: int, copula: int) -> None:
    """Swap where the predicate is a clause, which keeps all but its outer subject and what precedes *is*."""
    dependents = [i for i in children(tree, predicate) if i != copula]
    has_subject = any(tree[i].dep in {"nsubj", "nsubj:pass", "csubj"} for i in dependents)
    swap_with_copula(tree, predicate, copula, "ccomp" if has_subject else "xcomp")
    for child in dependents:
        if child < copula or tree[child].dep.endswith(":outer"):
            attach(tree, child, copula)
    move_final_punctuation(tree, predicate, copula)


def swap_with_copula(tree: Tree, predicate: int, copula: int, label: str) -> None:
    attach(tree, copula, tree[predicate].head, tree[predicate].dep)
    attach(tree, predicate, copula, label)


def predicate_label(tree: Tree, predicate: int) -> str:
    """The label below the copula; `obl` beside an adposition, of which `promote_adpositions` makes `prep`."""
    word = tree[predicate]
    if adpositions(tree, predicate):
        return "obl"
    if is_verb(word):
        return "xcomp"
    return {"ADJ": "acomp", "ADV": "advmod"}.get(word.pos, "attr")


def belongs_to_copula(tree: Tree, child: int, predicate: int, copula: int) -> bool:
    """Is this dependent of the predicate one of the clause rather than of the predicate's own phrase?"""
    word = tree[child]
    beyond = child < copula if copula < predicate else child > copula
    inside = {"det", "amod", "compound", "nummod", "case", "fixed", "flat"}
    if beyond and word.relation not in inside and word.dep != "nmod:poss":
        return True
    if word.relation in {
        *SUBJECTS,
        "aux",
        "expl",
        "mark",
        "parataxis",
        "vocative",
        "discourse",
    } or is_negation(word):
        return True
    if word.relation == "conj":
        clausal = {*SUBJECTS, "cop", "aux"}
        return is_verb(word) or any(tree[i].relation in clausal for i in children(tree, child))
    nominal = tree[predicate].pos not in {"ADJ", "ADV", "VERB", "AUX"}
    return nominal and word.relation in {"advcl", "ccomp", "xcomp", "obl", "advmod"}


def move_final_punctuation(tree: Tree, predicate: int, copula: int) -> None:
    """What closes the clause hangs on its new head."""
    rest = [i for i in children(tree, predicate) if tree[i].relation != "punct"]
    for child in children(tree, predicate):
        if tree[child].relation == "punct" and child > max([predicate, *rest]):
            attach(tree, child, copula)


def adpositions(tree: Tree, nominal: int) -> list[int]:
    """The `case` words that become heads; the possessive 's stays inside its phrase."""
    return [i for i in children(tree, nominal) if tree[i].relation == "case" and tree[i].tag != "POS"]


def promote_adpositions(tree: Tree) -> None:
    """ "on a boat": *on* takes the place of *boat* as `prep`, *boat* becomes its `pobj`."""
    inside = {"amod", "compound", "nummod", "det", "flat", "fixed"}
    for nominal, word in enumerate(tree):
        cases = adpositions(tree, nominal)
        if not cases or word.relation in inside or word.dep == "nmod:poss":
            continue
        first, last = cases[0], cases[-1]
        label = {"root": "root", "conj": "conj", "obl:agent": "agent"}.get(word.dep, "prep")
        attach(tree, first, word.head, label)
        for outer, inner in pairwise(cases):  # "out of the box": out -> of -> box
            attach(tree, inner, outer, "prep")
        attach(tree, nominal, last, "pcomp" if word.pos in {"ADV", "ADJ", "VERB", "AUX"} else "pobj")
        for child in children(tree, nominal):
            beyond = child < first < nominal or child > last > nominal
            if beyond or (tree[child].relation == "conj" and adpositions(tree, child)):
                attach(tree, child, first)


def relabel(tree: Tree) -> None:
    """Rename every relation; heads stay. Labels are computed first, so that all of them see UD's names."""
    for word, dep in zip(tree, [clearnlp_label(tree, i) for i in range(len(tree))], strict=True):
        word.dep = dep


def clearnlp_label(tree: Tree, i: int) -> str:
    """The ClearNLP label of word `i`, once copulas and adpositions are heads."""
    word = tree[i]
    head = tree[word.head] if word.head != ROOT else None
    siblings = [tree[s] for s in children(tree, word.head)] if head else []
    match word.relation:
        case "mark" if word.tag == "TO":
            return "aux"
        case "advmod" if is_negation(word):
            return "neg"
        case "advmod" if head and head.pos == "NUM":
            return "quantmod"
        case "expl":
            return "expl" if word.form.lower() == "there" else "nsubj"
        case "nsubj" if i > word.head and any(s.dep == "expl" and s.form.lower() == "there" for s in siblings):
            return "attr"
        case "xcomp" if word.pos in NOMINAL | {"ADJ"}:
            if any(s.relation == "obj" for s in siblings):
                return "oprd"
            return "acomp" if word.pos == "ADJ" else "attr"
        case "obl":
            return "npadvmod"
        case "nmod" if word.dep != "nmod:poss":
            return "compound" if i < word.head else "appos"
        case "list" | "parataxis" if word.pos in NOMINAL:
            return "appos"
    return PLAIN_LABELS.get(word.dep, word.relation)


def chain_conjuncts(tree: Tree) -> None:
    """ "a, b and c": UD hangs *b*, *c* on *a*; ClearNLP *c* on *b*, comma and *and* on what precedes."""
    for first in range(len(tree)):
        dependents = [i for i in children(tree, first) if i > first]
        conjuncts = [i for i in dependents if tree[i].dep == "conj"]
        for previous, conjunct in pairwise(conjuncts):
            between = (i for i in dependents if previous < i < conjunct)
            if all(tree[i].dep in {"cc", "punct"} for i in between):
                attach(tree, conjunct, previous)
    for conjunct, word in enumerate(tree):
        if word.dep != "conj":
            continue
        for child in children(tree, conjunct):
            if child > conjunct or tree[child].dep not in {"cc", "punct"}:
                break
            attach(tree, child, word.head)


def projectivise(tree: Tree) -> None:
    """Lift the shortest crossing arc to its grandparent until none crosses (Nivre and Nilsson 2005)."""
    while crossing := crossing_arcs(tree):
        child = min(crossing, key=lambda i: abs(i - tree[i].head))
        attach(tree, child, tree[tree[child].head].head)


def crossing_arcs(tree: Tree) -> list[int]:
    """Dependents whose arc spans a word that their head does not dominate."""
    ancestors = [set(path_to_root(tree, i)) for i in range(len(tree))]
    crossing = []
    for child, word in enumerate(tree):
        span = range(min(child, word.head) + 1, max(child, word.head))
        if word.head != ROOT and any(word.head not in ancestors[i] for i in span):
            crossing.append(child)
    return crossing


def path_to_root(tree: Tree, i: int) -> Iterator[int]:
    """Yield `i`, its head, the head's head … the root."""
    while i != ROOT:
        yield i
        i = tree[i].head


def subtree(tree: Tree, head: int) -> list[int]:
    """Indices of `head` and all below it, left to right."""
    return [i for i in range(len(tree)) if head in path_to_root(tree, i)]


def trim_left_edges(tree: Tree) -> None:
    """Let what does not belong to a chunk climb from its left edge, punctuation first of all."""
    changed = True
    while changed:
        changed = False
        for head, word in enumerate(tree):
            edge = next(iter(children(tree, head)), head)
            if word.head == ROOT or edge >= head:
                continue
            if tree[edge].dep == "punct" or (heads_chunk(tree, head) and tree[edge].dep not in CHUNK_MODIFIERS):
                attach(tree, edge, word.head)
                changed = True


def heads_chunk(tree: Tree, i: int) -> bool:
    """Does `noun_chunks` yield a chunk that ends in word `i`?"""
    if tree[i].pos not in NOMINAL:
        return False
    while tree[i].dep == "conj" and tree[i].head < i:
        i = tree[i].head
    return tree[i].dep in CHUNK_LABELS


def demote_nominal_root(tree: Tree) -> bool:
    """ "Yes, a dog": a root noun's chunk would hold all before it, so *yes* becomes the root. Any such?"""
    root = next(i for i, word in enumerate(tree) if word.head == ROOT)
    edge = next(iter(children(tree, root)), root)
    if edge >= root or tree[root].pos not in NOMINAL or tree[edge].dep in CHUNK_MODIFIERS:
        return False
    attach(tree, edge, ROOT, "ROOT")
    attach(tree, root, edge, "attr")
    return True


def is_verb(word: Word) -> bool:
    return word.pos in {"VERB", "AUX"}


def is_negation(word: Word) -> bool:
    return word.relation in {"advmod", "neg"} and word.lemma.lower() in {"not", "n't"}


# --- spaCy


def to_doc(vocab: Vocab, trees: list[Tree]) -> Doc:
    """One spaCy `Doc` with the words and all annotation of some converted trees, each a sentence."""
    starts = [0]
    for tree in trees:
        starts.append(starts[-1] + len(tree))
    words = [word for tree in trees for word in tree]
    heads = [
        start + (i if word.head == ROOT else word.head)
        for start, tree in zip(starts, trees, strict=False)
        for i, word in enumerate(tree)
    ]
    return Doc(
        vocab,
        words=[word.form for word in words],
        spaces=[word.space_after for word in words],
        tags=[word.tag for word in words],
        pos=[word.pos for word in words],
        lemmas=[word.lemma for word in words],
        heads=heads,
        deps=[word.dep for word in words],
    )
