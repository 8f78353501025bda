"""What mkdocs.yml asks of MkDocs: pages of the site that lie outside of docs/, and links between them and the others.

Pages are written for the repository, where a link leads from file to file. In the site a link to a file that is
there too leads to it, any other keeps its words only.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

ROOT = Path(__file__).parent.parent
# Places in the site of files outside of docs/.
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "checkpoints/embedded/README.md": "embedded.md",
    "notebooks/quickstart.ipynb": "quickstart.ipynb",
}
IN_REPOSITORY = {there: here for here, there in ELSEWHERE.items()}
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)")
PICTURE = re.compile(r"(!\[[^\]]*\])\((?!https?:)([^)\s]+)\)")
CODE = re.compile(r"(^ *```.*?^ *```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def in_site(path: str) -> str | None:
    """Where a file of the repository is in the site; None if it is not. One that is nowhere is left to MkDocs."""
    if path.startswith("docs/") or not (ROOT / path).exists():
        return path.removeprefix("docs/")
    return ELSEWHERE.get(path)


def for_the_site(markdown: str, page: str) -> str:
    """A page's text with its links; `page` is its place in the site."""
    folder = PurePosixPath(IN_REPOSITORY.get(page, f"docs/{page}")).parent

    def place(path: str) -> str | None:
        there = in_site(normpath(folder / path))
        return there and relpath(there, PurePosixPath(page).parent)

    def link(found: re.Match[str]) -> str:
        words, path, anchor = found.groups(default="")
        there = place(path)
        return f"[{words}]({there}{anchor})" if there else words

    def picture(found: re.Match[str]) -> str:
        return f"{found[1]}({place(found[2])})"

    parts = CODE.split(markdown)  # every second one is code
    parts[::2] = [PICTURE.sub(picture, LINK.sub(link, part)) for part in parts[::2]]
    return "".join(parts)


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for here, there in ELSEWHERE.items():
        files.append(File.generated(config, there, abs_src_path=str(ROOT / here)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return for_the_site(markdown, page.file.src_uri)
