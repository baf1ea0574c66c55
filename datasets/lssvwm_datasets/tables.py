"""Tables that people keep beside their videos: CSV, JSON lines, Parquet and npz, a row a frame, columns by their names.

Only the columns that are asked for have to be numbers. Rows count from 0; a text file's message names its line too. In
JSON lines, Parquet and npz a column may hold lists of one length: `action` of two numbers is `action_0` and `action_1`.
"""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lssvwm_datasets.errors import DamagedRecording, LssvwmError
from lssvwm_datasets.npz import load_arrays, npz_keys
from lssvwm_datasets.opening import opened_recording

SUFFIXES = (".csv", ".jsonl", ".parquet", ".npz")
DELIMITERS = ",;\t"
LONGEST_LINE = 2**20  # bytes
MEMORY_A_BYTE = 16  # bytes that a byte of text takes in memory: a digit and a comma become a number of Python's
BYTES_A_VALUE = 16  # of a value of Parquet: in its column, and as a number
LARGEST = 1e30  # of any number; float32 ends at 3e38
MOST_COLUMNS = 4096


@dataclass(frozen=True)
class Column:
    """A column: (T,) float64, and whether all of it was written as whole numbers, or as true and false."""

    values: NDArray[np.float64]
    whole: bool


@dataclass(frozen=True)
class Table:
    """The columns of a file by their names; every one has `length` rows."""

    path: Path
    columns: dict[str, Column]
    length: int
    first_line: int | None = None  # the line of a text file that row 0 is on

    def place(self, row: int, column: str) -> str:
        """Where a value is, for a message: the file, the row and its line, and the column."""
        return _place(self.path, row, column, None if self.first_line is None else self.first_line + row)

    def require(self, names: Iterable[str]) -> None:
        """Check that there are these columns. Raises: DamagedRecording where one is missing."""
        for name in names:
            if name not in self.columns:
                raise DamagedRecording(f"{self.path}: no column {name}; it has {', '.join(self.columns) or 'none'}")


def read_table(path: Path, max_memory: int, skipped: Callable[[str], bool] = lambda name: False) -> Table:
    """The columns of a file but those that are `skipped`.

    Raises: DamagedRecording naming the file, row and column of what is no finite number; OSError; LssvwmError where
    Parquet cannot be read here.
    """
    if path.suffix == ".npz":
        return _table(path, load_arrays(path, {key for key in npz_keys(path) if not skipped(key)}, max_memory))
    with opened_recording(path, f"{path.suffix[1:].upper()} table") as file:
        size = os.fstat(file.fileno()).st_size
        if path.suffix == ".parquet":
            return _table(path, _parquet(path, file, max_memory, skipped))
        if size > max_memory // MEMORY_A_BYTE:
            raise DamagedRecording(f"{path}: {size / 1e6:.0f} MB are too many; to read them, raise --max-memory")
        rows = _csv_rows(path, file) if path.suffix == ".csv" else _json_rows(path, file)
        return _text_table(path, rows, 2 if path.suffix == ".csv" else 1, skipped)


def column_names(path: Path) -> set[str]:
    """The names of a table's columns, by its beginning; none where it is damaged, as reading it tells.

    Raises: OSError.
    """
    try:
        if path.suffix == ".npz":
            return npz_keys(path)
        with opened_recording(path) as file:
            if path.suffix == ".parquet":
                return set(parquet_library().ParquetFile(file).schema_arrow.names)
            rows = _csv_rows(path, file) if path.suffix == ".csv" else _json_rows(path, file)
            return set(next(rows, {}))
    except LssvwmError:
        return set()


def _csv_rows(path: Path, file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Yields a row at a time, its cells as text. Raises: DamagedRecording; what `csv` and decoding raise."""
    header = file.readline(LONGEST_LINE).decode("utf-8-sig")
    delimiter = max(DELIMITERS, key=header.count)
    names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter, strict=True), [])]
    _check_names(path, names)
    lines = (line.decode() for line in _lines(file))
    for number, cells in enumerate(csv.reader(lines, delimiter=delimiter, strict=True)):
        if len(cells) != len(names):
            raise DamagedRecording(
                f"{path}: row {number} (line {number + 2}) has {len(cells)} cells; the header has {len(names)}"
            )
        yield dict(zip(names, cells, strict=True))


def _json_rows(path: Path, file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Yields a row at a time. Raises: DamagedRecording."""
    names: list[str] = []
    for number, line in enumerate(_lines(file)):
        where = f"{path}: row {number} (line {number + 1})"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DamagedRecording(f"{where} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise DamagedRecording(f"{where} is no object; expected one such as {{'taken_at': 0, 'forward': 1}}")
        if number == 0:
            names = list(row)
            _check_names(path, names)
        if set(row) != set(names):
            differs = min(set(row) ^ set(names))
            raise DamagedRecording(f"{where} {'has no' if differs in names else 'has a new'} column {differs}")
        yield row


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines up to the empty ones at the end. Raises: ValueError for one too long, or empty before others."""
    empty = False
    while line := file.readline(LONGEST_LINE):
        if not line.strip():
            empty = True
        elif empty:
            raise ValueError("an empty line in the middle")
        elif len(line) == LONGEST_LINE:
            raise ValueError(f"a line of more than {LONGEST_LINE} bytes")
        else:
            yield line


def _text_table(path: Path, rows: Iterator[dict[str, Any]], first_line: int, skipped: Callable[[str], bool]) -> Table:
    values: dict[str, list[float]] = {}
    whole: dict[str, bool] = {}
    length = 0
    for number, row in enumerate(rows):
        length += 1
        for name, cell in row.items():
            if skipped(name):
                continue
            entries = dict(_entries(name, cell))
            for key, entry in entries.items():
                value = _number(entry)
                if value is None:
                    where = _place(path, number, name, first_line + number)
                    raise DamagedRecording(f"{where}: expected a finite number, found {str(entry)[:40]!r}")
                column = values.setdefault(key, [])
                if len(column) != number:
                    raise DamagedRecording(f"{_place(path, number, name, first_line + number)}: a list of other length")
                column.append(value)
                whole[key] = whole.get(key, True) and _is_whole(entry)
    columns = {name: Column(np.array(column), whole[name]) for name, column in values.items()}
    if short := next((name for name, column in columns.items() if len(column.values) != length), None):
        raise DamagedRecording(f"{path}: column {short} has fewer entries than the table has rows")
    return _checked(Table(path, columns, length, first_line))


def _entries(name: str, cell: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(cell, list):
        yield from ((f"{name}_{number}", entry) for number, entry in enumerate(cell[:MOST_COLUMNS]))
    else:
        yield name, cell


def _number(entry: Any) -> float | None:
    """What a cell says as a finite number; None where it is none."""
    if isinstance(entry, str):
        text = entry.strip().lower()
        if text in ("true", "false"):
            return float(text == "true")
        if "_" in text:
            return None
        try:
            value = float(text)
        except ValueError:
            return None
    elif isinstance(entry, bool | int | float):
        try:
            value = float(entry)
        except OverflowError:
            return None
    else:
        return None
    return value if abs(value) <= LARGEST else None


def _is_whole(entry: Any) -> bool:
    if isinstance(entry, str):
        return not set(entry.strip().lower()) & set(".e") or entry.strip().lower() in ("true", "false")
    return isinstance(entry, bool | int)


def _parquet(path: Path, file: BinaryIO, max_memory: int, skipped: Callable[[str], bool]) -> dict[str, NDArray[Any]]:
    """The columns as arrays. Raises: DamagedRecording; LssvwmError."""
    content = parquet_library().ParquetFile(file)
    names = [name for name in content.schema_arrow.names if not skipped(name)]
    table = read_parquet(path, content, names, max_memory)
    arrays = {}
    for name in names:
        column = table.column(name).combine_chunks()
        if column.null_count:
            row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise DamagedRecording(f"{_place(path, row, name)}: expected a finite number, found none")
        arrays[name] = _rows_of_lists(path, name, column) if _is_list(column.type) else _numbers(column)
    return arrays


def read_parquet(path: Path, content: Any, names: list[str], max_memory: int, texts: Sequence[str] = ()) -> Any:
    """Columns of a `ParquetFile` as a `pyarrow.Table`; those of `texts` stay dictionaries, as the file was opened.

    A value that is repeated takes hardly any room in the file; what all take in memory is known before they are read.
    Raises: DamagedRecording where that is too much, or where a column is of text and not one of `texts`.
    """
    groups = [content.metadata.row_group(number) for number in range(content.metadata.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    for number in range(len(content.schema)):
        leaf = content.schema.column(number)
        name = next((name for name in names if leaf.path == name or leaf.path.startswith(f"{name}.")), None)
        if name is None:
            continue
        if leaf.physical_type == "BYTE_ARRAY" and name not in texts:
            raise DamagedRecording(f"{path}: column {name} is of text, expected numbers, a row a frame")
        size += sum(group.column(number).num_values for group in groups) * max(BYTES_A_VALUE, leaf.length or 0)
    if size > max_memory:
        raise DamagedRecording(f"{path}: needs more than {max_memory / 1e9:g} GB of memory; raise --max-memory")
    return content.read(columns=names, use_threads=False)  # its threads outlive an error, and abort the process


def _numbers(values: Any) -> NDArray[Any]:
    return values.to_numpy(zero_copy_only=False)


def _rows_of_lists(path: Path, name: str, column: Any) -> NDArray[Any]:
    """(T, n) of a column that holds a list of n in each row. Raises: DamagedRecording where n is another one."""
    values = column.flatten()
    lengths = _numbers(column.value_lengths())
    wrong = np.flatnonzero(lengths != lengths[:1])
    if len(wrong):
        where = _place(path, int(wrong[0]), name)
        raise DamagedRecording(f"{where}: a list of {lengths[wrong[0]]}, the first row has {lengths[0]}")
    if values.null_count:
        row = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False))) // max(1, int(lengths[0]))
        raise DamagedRecording(f"{_place(path, row, name)}: expected finite numbers, found none")
    return _numbers(values).reshape(len(column), -1) if len(values) else np.zeros((len(column), 0))


def _is_list(kind: Any) -> bool:
    import pyarrow

    return bool(
        pyarrow.types.is_list(kind) or pyarrow.types.is_fixed_size_list(kind) or pyarrow.types.is_large_list(kind)
    )


def parquet_library() -> Any:
    """`pyarrow.parquet`. Raises: LssvwmError where it is not installed."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise LssvwmError("Parquet files need pyarrow: pip install 'lssvwm[parquet]'") from error
    return pyarrow.parquet


def _table(path: Path, arrays: dict[str, NDArray[Any]]) -> Table:
    """Raises: DamagedRecording for arrays that are no columns of one length."""
    _check_names(path, list(arrays))
    columns: dict[str, Column] = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        if (
            array.dtype.kind not in "iufb"
            or array.ndim not in (1, 2)
            or (array.ndim == 2 and array.shape[1] > MOST_COLUMNS)
        ):
            raise DamagedRecording(
                f"{path}: column {name} is {array.dtype} of shape {array.shape}, expected numbers, a row a frame"
            )
        whole = array.dtype.kind in "iub"
        parts = {name: array} if array.ndim == 1 else {f"{name}_{n}": array[:, n] for n in range(array.shape[1])}
        columns |= {key: Column(part.astype(np.float64), whole) for key, part in parts.items()}
    lengths = {name: len(column.values) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        (shortest, least), (longest, most) = (pick(lengths.items(), key=lambda one: one[1]) for pick in (min, max))
        raise DamagedRecording(f"{path}: column {longest} has {most} rows and column {shortest} {least}")
    return _checked(Table(path, columns, next(iter(lengths.values()), 0)))


def _checked(table: Table) -> Table:
    """Raises: DamagedRecording for a table without rows, or with numbers that are not finite."""
    if not table.length:
        raise DamagedRecording(f"{table.path}: no rows")
    for name, column in table.columns.items():
        fine = np.abs(column.values) <= LARGEST
        if not fine.all():
            row = int(np.argmin(fine))
            raise DamagedRecording(f"{table.place(row, name)}: expected a finite number, found {column.values[row]}")
    return table


def _check_names(path: Path, names: list[str]) -> None:
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None or not all(names) or len(names) > MOST_COLUMNS:
        problem = f"column {twice} is named twice" if twice else "a column has no name"
        raise DamagedRecording(f"{path}: {problem}; expected a name for each column")


def _place(path: Path, row: int, column: str, line: int | None = None) -> str:
    return f"{path}: row {row}{f' (line {line})' if line is not None else ''}, column {column}"
