"""The models that ship with aas, as package data; see checkpoints/README.md."""
