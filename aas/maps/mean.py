"""The method's own map: attention averaged over layers and heads, minus its mean over the answer."""

import numpy as np


def without_token_mean(maps: np.ndarray) -> np.ndarray:
    """What is specific to each token: `maps` [tokens, h, w] minus their mean over the answer's tokens (section 3.2 of
    arXiv 2410.08209). Of a single token nothing would remain, so it stays as it is."""
    return maps - maps.mean(axis=0, keepdims=True) if len(maps) > 1 else maps
