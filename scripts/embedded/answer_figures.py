"""What the embedded LMM's own answers are worth as captions, by the photographs' captions."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from caption_data import concepts_in

from aas.metrics.captions import Caption, CaptionScorer

N_DRAWS = 2000


def interval(sums: Sequence[float], counts: Sequence[float]) -> dict[str, float]:
    """Mean over all that is counted, and its 95 % bootstrap interval over photographs, of each its sum and count."""
    table = np.array([sums, counts], float).T
    draws = table[np.random.default_rng(0).integers(len(table), size=(N_DRAWS, len(table)))].sum(1)
    means = draws[draws[:, 1] > 0]
    low, high = np.percentile(means[:, 0] / means[:, 1], [2.5, 97.5])
    total = table.sum(0)
    return {"mean": total[0] / total[1], "low": low, "high": high, "n": int(total[1]), "photographs": len(table)}


def answer_figures(answers: Mapping[int, str], captions: Mapping[int, Sequence[str]]) -> dict[str, dict[str, float]]:
    """`cider_d`, `words_right` and `words_found`, of answers and captions by image id.

    Right: the share of an answer's content words that one of the captions has. Found: the share of the content words
    of two captions or more that the answer has.
    """
    ids = sorted(answers)
    scored = CaptionScorer(["CIDEr"]).evidence([Caption(answers[i], list(captions[i])) for i in ids])["CIDEr"]
    figures = {"cider_d": interval(scored["values"], scored["n"])}
    rows: dict[str, list[tuple[int, int]]] = {"words_right": [], "words_found": []}
    for i in ids:
        said = set(concepts_in(answers[i]))
        counts = Counter(word for caption in captions[i] for word in set(concepts_in(caption)))
        common = {word for word, n in counts.items() if n >= 2}
        for name, wanted, there in (("words_right", said, counts.keys()), ("words_found", common, said)):
            rows[name].append((len(wanted & there), len(wanted)))
    return figures | {name: interval(*zip(*values, strict=True)) for name, values in rows.items()}
