"""`aas list models`: the families of LMMs that can be asked."""

from aas import registry


def families() -> list[dict[str, str]]:
    """One row for each model type of transformers: its family, and the family's one-line description."""
    rows = []
    for model_type in sorted(registry.LMM_FAMILIES):
        family = registry.load(registry.LMM_FAMILIES, model_type, "LMM family")
        described = " ".join((family.__doc__ or "").split("\n\n")[0].split())
        rows.append({"model_type": model_type, "family": family.__name__, "image_tokens": described})
    return rows


def as_text(rows: list[dict[str, str]]) -> str:
    width = max(len(row["model_type"]) for row in rows) + 2
    lines = [f"{row['model_type']:<{width}}{row['image_tokens']}" for row in rows]
    others = "Any other model type runs if its processor declares one grid of image tokens; `aas doctor MODEL` tells."
    refused = (
        f"Refused, since their image tokens have no place in the image: {', '.join(sorted(registry.LMM_REFUSED))}."
    )
    return "\n".join([*lines, "", others, refused])
