"""The documents as a site: it builds without a warning, has every public name, and loads nothing from elsewhere."""

import re
from pathlib import Path

import pytest

import aas
from aas.view.report import viewer_assets
from scripts.site_pages import for_the_site

ROOT = Path(__file__).parent.parent
FROM_ELSEWHERE = re.compile(
    r"""<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=["']?(?:https?:)?//|url\(["']?http"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Folder: the site, built as `python -m mkdocs build` does; a warning is an error."""
    pytest.importorskip("mkdocstrings", reason="no mkdocs here (pip install 'attend-and-segment[docs]')")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    return folder


def test_every_public_name_is_described(site):
    page = (site / "api.html").read_text(encoding="utf-8")
    assert not [name for name in aas.__all__ if name != "__version__" and f'id="aas.{name}"' not in page]
    assert "a list of groundings in its order" in page  # what a docstring says
    assert "segmenter_dtype" in page and "&lt;think&gt;" in page


def test_pages_load_nothing_from_elsewhere(site):
    pages = [file for kind in ("html", "css") for file in site.rglob(f"*.{kind}")]
    assert len(pages) > 25
    assert not [file.name for file in pages if FROM_ELSEWHERE.search(file.read_text(encoding="utf-8"))]


def test_pages_of_the_repository_are_in_it(site):
    home = (site / "index.html").read_text(encoding="utf-8")
    assert '<img alt="The answer and its masks" src="example.png"' in home and 'href="embedded.html"' in home
    assert (site / "quickstart.ipynb").read_bytes() == (ROOT / "notebooks/quickstart.ipynb").read_bytes()


@pytest.mark.parametrize(
    ("page", "written", "shown"),
    [
        ("index.md", "[viewer](docs/viewer.md#keys)", "[viewer](viewer.md#keys)"),
        ("glossary.md", "[card](../checkpoints/embedded/README.md)", "[card](embedded.md)"),
        ("embedded.md", "see [NOTICE](../../NOTICE)", "see NOTICE"),
        ("index.md", "![a](docs/a.png) [b](https://arxiv.org)", "![a](a.png) [b](https://arxiv.org)"),
        ("index.md", "`[a](docs/b.md)`\n```\n[a](docs/b.md)\n```", "`[a](docs/b.md)`\n```\n[a](docs/b.md)\n```"),
        ("index.md", "[gone](docs/gone.md), [gone](gone.md)", "[gone](gone.md), [gone](gone.md)"),
    ],
)  # fmt: skip
def test_links_lead_to_the_same_files(page, written, shown):
    assert for_the_site(written, page) == shown


def test_the_gallery_has_todays_viewer():
    """Its page is written by `python scripts/make_gallery.py`, which takes the models, and lies in the repository."""
    page = (ROOT / "docs/gallery/report.html").read_text(encoding="utf-8")
    assets = viewer_assets()
    assert assets.script in page and assets.style in page, "docs/gallery/report.html: run scripts/make_gallery.py"
