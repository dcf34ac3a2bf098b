"""Arrays with one row a feature: in memory if small, else in a nameless file that is mapped into memory."""

import os
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import Any

import numpy as np
from jaxtyping import Shaped

from fade_lens._util.errors import StoreError

IN_MEMORY = 2**27
"""Bytes up to which an array stays in memory."""


class Grid:
    """A `[feature, text]` array that is filled a few rows or columns at a time, and whose rows are contiguous.

    A large one lies in a file without a name, which the operating system removes when the last array made of it is
    gone or the process ends, however it ends: what was half written can never be taken for whole.

    Args:
        folder: where a large array's file lies; by default the system's folder for temporary files.

    Raises:
        StoreError: the folder has no room for the file.
    """

    def __init__(self, shape: tuple[int, int], dtype: Any, folder: Path | None = None) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        size = shape[0] * shape[1] * self._dtype.itemsize
        self._file: Any = None
        if size > IN_MEMORY:
            self._file = nameless_file(size, folder or Path(gettempdir()))
        self.rows: Shaped[np.ndarray, "feature text"] = (
            np.empty(shape, self._dtype) if self._file is None else self._map()
        )

    def _map(self) -> Shaped[np.ndarray, "feature text"]:
        return np.memmap(self._file, dtype=self._dtype, mode="r+", shape=self._shape)

    def release(self) -> None:
        """Give back the memory that a mapped file's written pages occupy; they stay with the file."""
        if self._file is not None:
            self.rows = self._map()  # the old map goes with its last reference


def nameless_file(size: int, folder: Path) -> Any:
    """A file of `size` bytes without a name, its room on the disk reserved: a map that runs out of it kills the process."""
    try:
        file = TemporaryFile(dir=folder)  # noqa: SIM115  it lives as long as its maps
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    except OSError as error:
        raise StoreError(
            f"folder {str(folder)!r} cannot hold {size / 1e9:.1f} GB of activations ({error.strerror}): "
            "free some room, or set TMPDIR to another folder"
        ) from error
    return file
