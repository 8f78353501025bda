"""What setup.cfg cannot say: packages in folders of another name, and README for a page that has none of our files."""

import re
from pathlib import Path

from setuptools import find_packages, setup

# package -> its folder; the others lie in folders of their names
ELSEWHERE = {"aas.embedded": "checkpoints/embedded", "difflmm.recipes": "recipes"}


def for_an_index_page(readme: str) -> str:
    """README without its pictures, and with the bare text of links to files: an index page has no files beside it."""
    readme = re.sub(r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n*", "", readme)
    return re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", readme)


setup(
    packages=[*find_packages(include=["aas", "aas.*", "difflmm", "difflmm.*"]), *ELSEWHERE],
    package_dir=ELSEWHERE,
    long_description=for_an_index_page(Path(__file__).with_name("README.md").read_text(encoding="utf-8")),
)
