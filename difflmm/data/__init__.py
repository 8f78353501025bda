"""Conversations in LLaVA's format to what a model is trained on: rows, their images and tokens, batches of them.

rows.py reads the file, images.py the pictures, tokens.py makes token ids and labels; conversations.py is the data set
of these, with what features.py keeps of images; batches.py puts its items in an order and together.
"""

from difflmm.data.images import read_image

__all__ = ["read_image"]
