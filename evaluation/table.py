"""Measures on disk, one line per picture: written as they come, read back when a stopped run goes on."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ..mforce_core.text_file import read_text
from ..mforce_core.whole_file import whole_file

#: The files of a run's folder.
TABLE, SETTINGS = "pictures.csv", "settings.json"

_REASON, _STAMP = "reason", "files"
#: Columns before the measures.
_HEAD = ("name", _REASON, _STAMP)


@dataclass(frozen=True)
class Row:
    """What became of a picture: its measures by name, or the reason why there are none.

    ``stamp`` marks the files that it was made from.
    """

    name: str
    measures: Mapping[str, float]
    reason: str = ""
    stamp: str = ""


class Table:
    """The table of a run in its folder.

    Args:
        folder: made where it does not exist.
        settings: JSON-able, everything that decides the numbers; a folder with others is refused.
        overwrite: start again.

    Raises:
        ValueError: the folder holds something else, or results of other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.path = folder / TABLE
        wanted = json.loads(json.dumps(settings))
        if folder.exists() and any(folder.iterdir()):
            if not (folder / SETTINGS).is_file():
                raise ValueError(f"{folder} holds files of something else: name another with `output`.")
            if not overwrite and _settings(folder) != wanted:
                raise ValueError(f"{folder} holds results of other settings: name another, or add `overwrite`.")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SETTINGS).write_text(json.dumps(wanted, indent=2, ensure_ascii=False) + "\n", "utf-8")
        if overwrite:
            self.path.unlink(missing_ok=True)
        self.rows = {} if overwrite else _read(self.path)
        self._columns: list[str] = []
        self._file: TextIO | None = None

    def add(self, row: Row) -> None:
        """Keep a row, and write it at once."""
        self.rows[row.name] = row
        if self._file is None or not set(row.measures).issubset(self._columns):
            self._rewrite()
        else:
            self._file.write(self._lines([row]))
            self._file.flush()

    def close(self) -> None:
        """Close the file; `add` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def drop_changed(self, stamps: Mapping[str, str]) -> None:
        """Forget pictures whose files are not those that they were measured on, by the stamps of today."""
        self.rows = {name: row for name, row in self.rows.items() if row.stamp == stamps.get(name, "")}

    def column(self, name: str) -> list[float]:
        """A measure of all pictures that have it, in the order of their names."""
        return [row.measures[name] for _, row in sorted(self.rows.items()) if name in row.measures]

    @property
    def measures(self) -> list[str]:
        """Names of all measures, in the order in which they were first seen."""
        return list(dict.fromkeys(name for row in self.rows.values() for name in row.measures))

    @property
    def failures(self) -> list[Row]:
        return [row for _, row in sorted(self.rows.items()) if row.reason]

    def _rewrite(self) -> None:
        """Write all rows, with a header that has every measure; the file is whole at every moment."""
        self.close()
        self._columns = [*_HEAD, *self.measures]
        header = io.StringIO()
        csv.writer(header).writerow(self._columns)
        with whole_file(self.path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            file.write(header.getvalue() + self._lines(self.rows.values()))
        self._file = self.path.open("a", encoding="utf-8", newline="")

    def _lines(self, rows: Iterable[Row]) -> str:
        text = io.StringIO()
        for row in rows:
            values = [repr(row.measures[name]) if name in row.measures else "" for name in self._columns[len(_HEAD) :]]
            csv.writer(text).writerow([row.name, row.reason, row.stamp, *values])
        return text.getvalue()


def _settings(folder: Path) -> Any:
    try:
        return json.loads(read_text(folder / SETTINGS))
    except ValueError:
        return None


def _read(path: Path) -> dict[str, Row]:
    """Rows that an earlier run finished. Failed ones are tried again, and a last line that is cut short is dropped."""
    if not path.is_file():
        return {}
    text = path.read_bytes().decode("utf-8", "replace")
    lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    rows = {}
    for cells in lines[1:]:
        if len(cells) == len(lines[0]) and not cells[1]:
            values = dict(zip(lines[0], cells, strict=True))
            measures = {name: float(cell) for name, cell in values.items() if cell and name not in _HEAD}
            rows[cells[0]] = Row(cells[0], measures, stamp=values.get(_STAMP, ""))
    return rows
