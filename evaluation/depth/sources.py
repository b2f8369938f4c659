"""Where a data set's files lie: a folder, or a tar that is read in place."""

from __future__ import annotations

import tarfile
from pathlib import Path

from ..stamps import file_facts, stamp_of

#: Larger files are not read: the largest maps of the benchmarks (ETH3D) have 98 MB.
_MOST_BYTES = 1 << 29


class Source:
    """Files by their path relative to a folder, or to the root of a tar. Pickles; a tar is opened on the first read."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise ValueError(f"{path} does not exist: give the data set's folder or its .tar.")
        self.path = path
        self._members: dict[str, tuple[int, int]] | None = None

    def read(self, relative: str) -> bytes:
        """The bytes of a file.

        Raises:
            ValueError: it is not there, is cut short or too large.
        """
        return self._from_folder(relative) if self.path.is_dir() else self._from_tar(relative)

    def has(self, relative: str) -> bool:
        """Whether there is such a file."""
        if self.path.is_dir():
            return (self.path / relative).is_file()
        return _normal(relative) in self._index()

    def stamp(self, *relative: str) -> str:
        """A mark of some files, which need not be there."""
        if self.path.is_dir():
            return stamp_of(file_facts(self.path / name) for name in relative)
        index = self._index()
        return stamp_of([file_facts(self.path), *(index.get(_normal(name)) for name in relative)])

    def names(self) -> list[str]:
        """Relative paths of all files, sorted."""
        if self.path.is_dir():
            return sorted(file.relative_to(self.path).as_posix() for file in self.path.rglob("*") if file.is_file())
        return sorted(self._index())

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_members": None}

    def _from_folder(self, relative: str) -> bytes:
        file = self.path / relative
        try:
            if file.stat().st_size > _MOST_BYTES:
                raise ValueError(f"{relative} is larger than {_MOST_BYTES >> 20} MiB")
            return file.read_bytes()
        except OSError as error:
            raise ValueError(f"{relative} cannot be read ({error.strerror or error})") from None

    def _from_tar(self, relative: str) -> bytes:
        found = self._index().get(_normal(relative))
        if found is None:
            raise ValueError(f"{relative} is not in {self.path.name}")
        start, size = found
        if size > _MOST_BYTES:
            raise ValueError(f"{relative} is larger than {_MOST_BYTES >> 20} MiB")
        with self.path.open("rb") as file:
            file.seek(start)
            content = file.read(size)
        if len(content) != size:
            raise ValueError(f"{relative} is cut short in {self.path.name}")
        return content

    def _index(self) -> dict[str, tuple[int, int]]:
        """Position and size of every file of the tar. One that ends too early keeps what comes before."""
        if self._members is None:
            self._members = {}
            try:
                with tarfile.open(self.path, "r:") as tar:
                    try:
                        for member in tar:
                            if member.isreg():
                                self._members[_normal(member.name)] = member.offset_data, member.size
                    except tarfile.TarError:
                        pass
            except tarfile.TarError:
                raise ValueError(f"{self.path} is neither a folder nor an uncompressed .tar.") from None
        return self._members


def _normal(name: str) -> str:
    return name.removeprefix("./")
