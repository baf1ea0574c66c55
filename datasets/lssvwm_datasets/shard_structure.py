"""What a shard must be before anything of it is read: whole in its one file, and no larger than it.

HDF5 lets a file name others that its data lies in (external storage, external and soft links, virtual datasets), and
declare any size. A shard may come from anywhere, so all that is refused here.
"""

import math
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5l, h5o, h5z

from lssvwm_datasets.index import ShardHeader
from lssvwm_datasets.streams import columns_of, stored_streams

LONGEST_ID, IDS_AT_ONCE = 4096, 16  # characters; each of the ids read together may be as long as the file
LONGEST_ATTRIBUTE = 65536  # numbers
TEXT = "text"
TABLES = {"episode_start": np.dtype("i8"), "episode_length": np.dtype("i8"), "episode_id": TEXT}
REQUIRED = ("latents", *TABLES)


def check_structure(file: h5py.File, header: ShardHeader, size: int) -> None:
    """Check that a file of `size` bytes is what its header says. Raises: KeyError, ValueError or h5py's if not."""
    names = [name.decode() for name in file.id]
    for name in names:
        if file.id.links.get_info(name.encode()).type != h5l.TYPE_HARD:
            raise ValueError(f"{name} is a link to elsewhere, expected data of the shard itself")
    found = {name: _dataset(file, name) for name in names}
    streams = {stream.stored: columns_of(header, stream.name) for stream in stored_streams(header)}
    for name in (*REQUIRED, *streams):
        if name not in found:
            raise ValueError(f"no {name}")
    episodes, frames = _length(found["episode_length"]), _length(found["actions"])
    columns = {
        "latents": (header.latent_shape, "f2"),
        **{name: ((len(names),), "f4") for name, names in streams.items()},
        "frames": ((*header.frame_size, 3), "u1"),
    }
    expected: dict[str, tuple[tuple[int, ...], Any]] = {
        **{name: ((frames, *shape), np.dtype(dtype)) for name, (shape, dtype) in columns.items()},
        **{name: ((episodes,), dtype) for name, dtype in TABLES.items()},
    }
    if "layouts" in found:  # square, of any size
        expected["layouts"] = ((episodes, *2 * found["layouts"].shape[-1:]), np.dtype("u1"))
    for name in found.keys() & expected:
        shape, dtype = expected[name]
        if found[name].shape != shape or not _is_of(found[name], dtype):
            shown = f"{found[name].dtype} {found[name].shape}"
            raise ValueError(f"{name} is {shown}, expected {dtype} {shape}, as the header and the other tables say")
    declared = sum(_check_stored(name, found[name], size) for name in found)
    if declared > size:
        raise ValueError(f"declares {declared} bytes of data, the file has {size}")


def read_tables(file: h5py.File, frames: int) -> list[tuple[str, int, int]]:
    """Id, start and length of each episode of a checked file. Raises: ValueError where they do not fit together."""
    starts, lengths = file["episode_start"][:], file["episode_length"][:]
    if not ((lengths >= 0) & (lengths <= frames)).all() or sum(lengths.tolist()) != frames:
        raise ValueError(f"its episodes have {sum(lengths.tolist())} frames in all; rows stored: {frames}")
    if not np.array_equal(starts, np.cumsum(lengths) - lengths):
        raise ValueError("its episodes do not lie one after another")
    text = file["episode_id"].asstr("utf-8", "surrogateescape")
    ids: list[str] = []
    for first in range(0, len(lengths), IDS_AT_ONCE):
        ids += text[first : first + IDS_AT_ONCE].tolist()
        if max(map(len, ids)) > LONGEST_ID:
            raise ValueError(f"an id of an episode has more than {LONGEST_ID} characters")
    return list(zip(ids, starts.tolist(), lengths.tolist(), strict=True))


def attribute(file: h5py.File, name: str) -> Any:
    """A text, or a list of numbers. Raises: KeyError; ValueError for anything else."""
    found = h5a.open(file.id, name.encode())
    dtype, shape = found.dtype, found.shape  # asking HDF5 for them takes longer than all the rest
    is_text = h5py.check_string_dtype(dtype) is not None and shape == ()
    if not is_text and (dtype.kind not in "iuf" or len(shape) > 1 or math.prod(shape) > LONGEST_ATTRIBUTE):
        raise ValueError(f"attribute {name} is neither a text nor a row of numbers")
    value = np.empty(shape, dtype)
    found.read(value)
    if not is_text:
        return value.reshape(-1).tolist()
    return value[()].decode() if isinstance(value[()], bytes) else value[()]


def _dataset(file: h5py.File, name: str) -> h5d.DatasetID:
    found = h5o.open(file.id, name.encode())
    if not isinstance(found, h5d.DatasetID):
        raise ValueError(f"{name} is no dataset")
    return found


def _length(dataset: h5d.DatasetID) -> int:
    return int(dataset.shape[0]) if dataset.shape else 0


def _is_of(dataset: h5d.DatasetID, dtype: Any) -> bool:
    return h5py.check_string_dtype(dataset.dtype) is not None if dtype is TEXT else dataset.dtype == dtype


def _check_stored(name: str, dataset: h5d.DatasetID, size: int) -> int:
    """The bytes that a dataset declares. Raises: ValueError where they are not all in the file, and as they are."""
    plan = dataset.get_create_plist()
    if plan.get_external_count() or plan.get_layout() == h5d.VIRTUAL:
        raise ValueError(f"{name} lies in other files, expected it in the shard itself")
    if {plan.get_filter(number)[0] for number in range(plan.get_nfilters())} - {h5z.FILTER_FLETCHER32}:
        raise ValueError(f"{name} is compressed, expected it as it is")
    width = dataset.get_type().get_size()
    declared, stored = math.prod(dataset.shape) * width, dataset.get_storage_size()
    if declared > stored:
        raise ValueError(f"{name} declares {declared} bytes, the file holds {stored} of them")
    if declared and plan.get_layout() == h5d.CHUNKED and math.prod(plan.get_chunk()) * width > size:
        raise ValueError(f"{name} has chunks larger than the file")
    return declared
