"""Mask heads that are trained on a frozen LMM, a file for each; `aas.registry.MASK_HEADS` knows their names.

`features.py` is what a head is given of a photograph, `head.py` what it offers; `refiner.py` redraws masks with SAM;
`losses.py`, what they learn by; `stored.py`, their files, and `from_flmm.py` and `from_hglmm.py`, those of the authors.
"""
