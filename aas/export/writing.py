"""How all formats write: whole files, the same bytes for the same results."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from aas.store.atomic import write_text

NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_json(path: Path, content: Any) -> None:
    """On one line."""
    write_text(path, json_line(content))


def json_line(content: Any) -> str:
    """One line of JSON."""
    return json.dumps(content, ensure_ascii=False) + "\n"


def write_xml(path: Path, root: ElementTree.Element) -> None:
    """Indented, UTF-8, which needs no declaration: some readers take the text of a file, and refuse one with it."""
    ElementTree.indent(root)
    write_text(path, ElementTree.tostring(root, "unicode") + "\n")


def element(parent: ElementTree.Element, tag: str, text: object = "", **attributes: object) -> ElementTree.Element:
    """A new last child; text and attributes without the characters that XML cannot hold."""
    child = ElementTree.SubElement(parent, tag, {name: xml_text(value) for name, value in attributes.items()})
    child.text = xml_text(text)
    return child


def xml_text(value: object) -> str:
    """Without the characters that XML cannot hold, not even escaped."""
    return NO_XML.sub("", str(value))
