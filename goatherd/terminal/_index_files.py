"""Files as documents: which of a folder's are loaded, and what is known of each."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from goatherd.contracts.retrieval import DOC_ID_RULE, MOST_TEXT_BYTES, is_doc_id
from goatherd.terminal._index_document import LoadedDocument

_MOST_TITLE = 200
_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_MARKDOWN = (".md", ".markdown", ".mdx")

_TEXT = ("*.txt", "*.text", "*.rst", "*.adoc", "*.org", "*.tex")
_CODE = (
    *("*.py", "*.pyi", "*.js", "*.mjs", "*.jsx", "*.ts", "*.tsx", "*.vue", "*.svelte", "*.html", "*.css"),
    *("*.c", "*.h", "*.cc", "*.cpp", "*.hpp", "*.cu", "*.rs", "*.go", "*.java", "*.kt", "*.scala", "*.swift"),
    *("*.rb", "*.php", "*.pl", "*.lua", "*.r", "*.jl", "*.ex", "*.exs", "*.erl", "*.hs", "*.ml", "*.clj"),
    *("*.sh", "*.bash", "*.zsh", "*.ps1", "*.sql", "*.proto", "*.graphql", "*.cs", "*.fs", "*.dart", "*.zig"),
    *("*.toml", "*.yaml", "*.yml", "*.ini", "*.cfg", "*.cmake", "*.tf", "*.nix"),
    *("Makefile", "Dockerfile"),
)
PATTERNS = (*(f"*{suffix}" for suffix in _MARKDOWN), *_TEXT, *_CODE, "README", "LICENSE", "CHANGELOG")
"""Text, markdown and code."""
_NEVER = (".*", "__pycache__", "node_modules", "*.egg-info")


class Files:
    """A folder's files, or one file. A file's id is `prefix` and its path within the folder, with `/`.

    A pattern with a `/` is compared with that path, any other with the name; `*` stands for anything, `/`
    too. Hidden files and folders, and those of tools (`__pycache__`, `node_modules`, virtual environments),
    are passed over, and empty files are as if they were not there. Of a folder that can't be read nobody
    knows what is in it: it is left out as a whole.
    """

    def __init__(
        self,
        root: Path,
        *,
        include: Sequence[str] = PATTERNS,
        exclude: Sequence[str] = (),
        prefix: str = "",
    ) -> None:
        self._root = root
        self._include = include
        self._exclude = exclude
        self._prefix = prefix
        self.left_out: Mapping[str, str] = {}

    def documents(self) -> Iterator[LoadedDocument]:
        """By path."""
        left_out: dict[str, str] = {}
        for path, relative in self._files(left_out):
            id = f"{self._prefix}{relative}"
            try:
                found = _document(path, relative, id)
            except _Unfit as error:
                left_out[id] = str(error)
            except OSError as error:
                left_out[id] = f"{error.strerror or error}"
            else:
                if found is not None:
                    yield found
        self.left_out = left_out

    def _files(self, left_out: dict[str, str]) -> Iterator[tuple[Path, str]]:
        def unread(error: OSError) -> None:
            if error.filename is None or Path(error.filename) == self._root:
                raise error
            below = Path(error.filename).relative_to(self._root).as_posix()
            left_out[f"{self._prefix}{below}/"] = f"the folder can't be read ({error.strerror or error})"

        if not self._root.is_dir():
            # Whoever names a file means it, whatever it is called.
            with self._root.open("rb"):
                yield self._root, self._root.name
            return
        os.listdir(self._root)  # Else a folder that can't be read would be an empty one.
        for folder, folders, names in os.walk(self._root, onerror=unread):
            here = PurePosixPath(Path(folder).relative_to(self._root).as_posix())
            folders[:] = sorted(name for name in folders if not self._passed_over(here, name, Path(folder)))
            for name in sorted(names):
                relative = (here / name).as_posix()
                wanted = _is_one(relative, self._include) and not _is_one(relative, self._exclude)
                path = Path(folder, name)
                if wanted and not _is_one(name, _NEVER) and _may_be_file(path):
                    yield path, relative

    def _passed_over(self, here: PurePosixPath, name: str, folder: Path) -> bool:
        # By `os.path`, which says no where nobody may look: the folder itself is told then.
        if _is_one(name, _NEVER) or os.path.exists(folder / name / "pyvenv.cfg"):
            return True
        return _is_one((here / name).as_posix(), self._exclude)


class _Unfit(Exception):
    """No document, and why."""


def _may_be_file(path: Path) -> bool:
    """Also if nobody can tell: whoever reads it says why not."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _is_one(path: str, patterns: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatchcase(path if "/" in pattern else name, pattern) for pattern in patterns)


def _document(path: Path, relative: str, id: str) -> LoadedDocument | None:
    """None for an empty file."""
    try:
        id.encode()
    except UnicodeEncodeError:
        raise _Unfit("its name is not UTF-8") from None
    if not is_doc_id(id):
        raise _Unfit(DOC_ID_RULE)
    status = path.stat()
    if status.st_size > MOST_TEXT_BYTES:
        raise _Unfit(f"it has {status.st_size:,} bytes; a document has at most {MOST_TEXT_BYTES:,}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unfit(f"it is not UTF-8 (at byte {error.start})") from None
    if "\0" in text:
        raise _Unfit("it has the character NUL: it is no text")
    if not text.strip():
        return None
    modified = datetime.fromtimestamp(int(status.st_mtime), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {"path": relative, "title": title_of(relative, text)}
    return LoadedDocument(id, text, metadata=metadata, more={"modified": modified})


def title_of(path: str, text: str) -> str:
    """A markdown file's first heading; else the file's name."""
    if path.lower().endswith(_MARKDOWN) and (heading := _HEADING.search(_FENCE.sub("", text))):
        return heading[1][:_MOST_TITLE]
    return path.rpartition("/")[2][:_MOST_TITLE]
