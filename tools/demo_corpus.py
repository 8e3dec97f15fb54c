"""The demo model's training text: the documentation that every CPython carries.

Standard library only. Two sources, both under the PSF licence: the language reference's topics
(`pydoc_data.topics`, what `help("with")` shows) and the docstrings of the standard library's public
modules, classes and functions, read from the sources by `ast` so that no module is imported. The
order is fixed and nothing depends on the machine but the files themselves: the same CPython release
gives the same documents, and `digest` says whether it did.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from pydoc_data.topics import topics

# Tests, vendored copies and generated tables: no documentation, or not in every build of CPython.
SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "site-packages",
        "dist-packages",
        "test",
        "tests",
    }
)
SKIPPED_FILES = ("_sysconfigdata", "_pydecimal")
SHORTEST = 60  # characters; a shorter docstring is a label, not prose
PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."})
_Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def documents() -> list[str]:
    """All documents, each `heading`, blank line, text; duplicates of a text are left out."""
    seen: set[str] = set()
    found: list[str] = []
    for heading, text in (*_topic_texts(), *_docstrings(Path(sysconfig.get_path("stdlib")))):
        heading, body = heading.translate(PLAIN), unwrap(text)
        if len(body) >= SHORTEST and body not in seen and body.isascii():
            seen.add(body)
            found.append(f"{heading}\n\n{body}")
    return found


def digest(texts: Sequence[str]) -> str:
    """SHA-256 of the documents, in order, as hexadecimal."""
    sha = hashlib.sha256()
    for text in texts:
        sha.update(text.encode() + b"\0")
    return sha.hexdigest()


def unwrap(text: str) -> str:
    """Join the lines of prose paragraphs; keep code, tables, lists and grammar as they are.

    Code of two lines can't be told from a paragraph with a hanging indent, and is joined.
    """
    cleaned = re.sub(r"(?<=[.!?;:,]) {2}(?=\S)", " ", text.expandtabs(4).rstrip())
    cleaned = re.sub(r"^(?: *\n)+", "", cleaned.translate(PLAIN))
    paragraphs = re.split(r"\n[ ]*\n+", cleaned)
    return "\n\n".join(_joined(paragraph) for paragraph in paragraphs)


def _joined(paragraph: str) -> str:
    lines = [line.rstrip() for line in paragraph.split("\n")]
    indents = {len(line) - len(line.lstrip()) for line in lines[1:]}
    words = [line.strip() for line in lines]
    is_prose = len(indents) <= 1 and not any(
        re.search(r"  |>>>|::=|^[-=*+#|~]{3,}|^[-*@] |^\S+ - ", line) for line in words
    )
    if not is_prose:
        return "\n".join(lines)
    indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    return indent + re.sub(r"(?<=\w-)\n(?=\w)", "", "\n".join(words)).replace("\n", " ")


def _topic_texts() -> Iterator[tuple[str, str]]:
    for name in sorted(topics):
        title, _, rest = topics[name].strip().partition("\n")
        # A title is underlined; a topic without one starts with its text.
        underline, _, body = rest.partition("\n")
        if underline.strip("*=-"):
            yield name, topics[name]
        else:
            yield title.strip(), body


def _docstrings(stdlib: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(stdlib.rglob("*.py")):
        parts = path.relative_to(stdlib).with_suffix("").parts
        if not SKIPPED_FOLDERS.isdisjoint(parts) or path.name.startswith(SKIPPED_FILES):
            continue
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old sources
            tree = ast.parse(path.read_bytes())
        if text := ast.get_docstring(tree):
            yield module, text
        yield from _members(tree.body, module)


def _members(body: Sequence[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
    for node in body:
        if not isinstance(node, _Documented) or node.name.startswith("_"):
            continue
        name = f"{prefix}.{node.name}"
        if text := ast.get_docstring(node):
            yield name, text
        if isinstance(node, ast.ClassDef):
            yield from _members(node.body, name)
