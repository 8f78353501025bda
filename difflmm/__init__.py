"""DiffLMM: a large multimodal model whose eyes are a diffusion model (arXiv 2410.08209).

`import difflmm.model` makes its folders known to transformers' Auto classes.
"""
