"""`aas head train`: what was captured of each photograph, once (`cache.py`), and how a head learns from it (`fit.py`),
by a recipe (`recipe.py`)."""
