"""When a progress bar is drawn."""


def bar_for(n_items: int) -> dict[str, bool]:
    """Arguments of `tqdm`: none for a single item; for more, as `aas -q` (TQDM_DISABLE) wants it."""
    return {"disable": True} if n_items == 1 else {}
