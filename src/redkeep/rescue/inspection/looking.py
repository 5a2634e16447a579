"""What the families of an inspection share: the tree, the index, and where they put what they find."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from redkeep.rescue.disk.tree import MAX_TEXT, Tree, is_directory, is_file, names, read_text, reason
from redkeep.rescue.inspection.index import Index
from redkeep.rescue.inspection.settings import masked_command


@dataclass
class Look:
    """``wanted``: what ``extract`` takes, with the family it belongs to. ``unseen``: what was not looked at, and why."""

    tree: Tree
    index: Index
    reveal: bool = False
    wanted: list[tuple[bytes, str]] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    def want(self, family: str, *paths: bytes) -> None:
        self.wanted += [(path, family) for path in paths]

    def text(self, path: bytes, limit: int = MAX_TEXT) -> str:
        """Empty where there is none; what cannot be read is named."""
        try:
            return read_text(self.tree, path, limit)
        except FileNotFoundError:
            return ""
        except OSError as error:
            if is_file(self.tree, path):
                self.unseen.append(f"{path.decode('utf-8', 'backslashreplace')}: {reason(error)}")
            return ""

    def command(self, text: str) -> str:
        """A command line for the report: without the secrets in it, unless those are asked for."""
        return text if self.reveal else masked_command(text)

    def files(self, directory: bytes) -> Iterator[bytes]:
        """The files in a directory, sorted, links followed inside the root."""
        for name in names(self.tree, directory):
            path = directory.rstrip(b"/") + b"/" + name
            if is_file(self.tree, path):
                yield path

    def is_directory(self, path: bytes) -> bool:
        return is_directory(self.tree, path)
