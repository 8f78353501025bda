"""Ground every noun phrase of a multimodal model's answer to a pixel mask, without grounding training."""
