"""DiffLMM: a large multimodal model whose visual encoder is a diffusion model (arXiv 2410.08209).

`import difflmm.model` makes its folders known to transformers' Auto classes.
"""
