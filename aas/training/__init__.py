"""`aas head train`: photographs with right masks (`data.py`), what was captured of each (`cache.py`, `examples.py`),
how a head learns from it (`fit.py`), by a recipe (`recipe.py`), and what is told meanwhile (`watch.py`)."""
