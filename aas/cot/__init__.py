"""Visual chain of thought: ask which object matters, ground it, crop, ask again with both images (docs/cot.md)."""
