"""A SavedModel in TensorFlow's C library, as a server in C++ holds it: no Python TensorFlow.

This file runs by itself in a process that imports neither `tensorflow` nor `tf_dpce`.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np

_STRING = 7
_DTYPES = {1: np.float32, 3: np.int32, 9: np.int64}
_STRING_BYTES = 24  # of a TF_TString


class _Buffer(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("length", c_size_t), ("deallocate", c_void_p)]


class _Output(ctypes.Structure):
    _fields_ = [("operation", c_void_p), ("index", c_int)]


_FUNCTIONS = {
    "TF_NewStatus": (c_void_p,),
    "TF_GetCode": (c_int, c_void_p),
    "TF_Message": (c_char_p, c_void_p),
    "TF_DeleteStatus": (None, c_void_p),
    "TF_GetAllOpList": (POINTER(_Buffer),),
    "TF_LoadLibrary": (c_void_p, c_char_p, c_void_p),
    "TF_NewGraph": (c_void_p,),
    "TF_NewSessionOptions": (c_void_p,),
    "TF_LoadSessionFromSavedModel": (
        *(c_void_p, c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int),
        *(c_void_p, c_void_p, c_void_p),
    ),
    "TF_CloseSession": (None, c_void_p, c_void_p),
    "TF_GraphOperationByName": (c_void_p, c_void_p, c_char_p),
    "TF_AllocateTensor": (c_void_p, c_int, POINTER(c_int64), c_int, c_size_t),
    "TF_DeleteTensor": (None, c_void_p),
    "TF_TensorType": (c_int, c_void_p),
    "TF_NumDims": (c_int, c_void_p),
    "TF_Dim": (c_int64, c_void_p, c_int),
    "TF_TensorData": (c_void_p, c_void_p),
    "TF_TensorByteSize": (c_size_t, c_void_p),
    "TF_StringInit": (None, c_void_p),
    "TF_StringCopy": (None, c_void_p, c_char_p, c_size_t),
    "TF_StringDealloc": (None, c_void_p),
    "TF_SessionRun": (
        *(None, c_void_p, c_void_p),
        *(POINTER(_Output), POINTER(c_void_p), c_int, POINTER(_Output), POINTER(c_void_p), c_int),
        *(c_void_p, c_int, c_void_p, c_void_p),
    ),
}


class Library:
    """TensorFlow's C library.

    Args:
        tensorflow: the folder of the installed package, which holds it.
        text: the folder of the libraries of TensorFlow Text, whose operations are added.
    """

    def __init__(self, tensorflow: Path, text: Path | None = None) -> None:
        for name in ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2"):
            # Libraries of further operations look for what these define.
            library = ctypes.CDLL(str(tensorflow / name), ctypes.RTLD_GLOBAL)
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name.removeprefix("TF_"), function)
        for path in sorted(text.glob("*.so")) if text else ():
            with self.checked() as status:
                self.LoadLibrary(str(path).encode(), status)

    def operation_list(self) -> bytes:
        """Returns all operations it knows, an encoded `tensorflow.OpList`."""
        buffer = self.GetAllOpList().contents
        return ctypes.string_at(buffer.data, buffer.length)

    @contextmanager
    def checked(self) -> Iterator[c_void_p]:
        """Yields a status for a call, and raises what it says afterwards."""
        status = self.NewStatus()
        try:
            yield status
            if self.GetCode(status):
                raise RuntimeError(self.Message(status).decode(errors="replace"))
        finally:
            self.DeleteStatus(status)

    def strings(self, values: Sequence[bytes]) -> c_void_p:
        """Returns a new tensor of strings `[B]`."""
        size = len(values) * _STRING_BYTES
        tensor = self.AllocateTensor(_STRING, (c_int64 * 1)(len(values)), 1, size)
        for place, value in zip(self._places(tensor), values, strict=True):
            self.StringInit(place)
            self.StringCopy(place, value, len(value))
        return tensor

    def delete_strings(self, tensor: c_void_p) -> None:
        """Gives a tensor of `strings` back."""
        for place in self._places(tensor):
            self.StringDealloc(place)
        self.DeleteTensor(tensor)

    def taken(self, tensor: c_void_p) -> np.ndarray:
        """Returns the numbers of a tensor, which is given back."""
        try:
            dtype = self.TensorType(tensor)
            if dtype not in _DTYPES:
                raise RuntimeError(f"an output has TensorFlow's type {dtype}")
            shape = [self.Dim(tensor, axis) for axis in range(self.NumDims(tensor))]
            content = ctypes.string_at(self.TensorData(tensor), self.TensorByteSize(tensor))
            return np.frombuffer(content, _DTYPES[dtype]).reshape(shape)
        finally:
            self.DeleteTensor(tensor)

    def _places(self, tensor: c_void_p) -> range:
        start = self.TensorData(tensor) or 0
        return range(start, start + self.Dim(tensor, 0) * _STRING_BYTES, _STRING_BYTES)


class BareModel:
    """A SavedModel in a Session of the C library."""

    def __init__(self, library: Library, graph: c_void_p, session: c_void_p) -> None:
        self._library = library
        self._graph = graph
        self._session = session

    def fetch(self, names: Sequence[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Returns tensors by their names in the graph, given string tensors `[B]` by theirs."""
        fed = [self._library.strings(values.tolist()) for values in feeds.values()]
        given = (c_void_p * len(names))()
        try:
            with self._library.checked() as status:
                self._library.SessionRun(
                    *(self._session, None),
                    *(self._outputs(feeds), (c_void_p * len(fed))(*fed), len(fed)),
                    *(self._outputs(names), given, len(names)),
                    *(None, 0, None, status),
                )
        finally:
            for tensor in fed:
                self._library.delete_strings(tensor)
        return [self._library.taken(tensor) for tensor in given]

    def _outputs(self, names: Sequence[str]) -> ctypes.Array:
        return (_Output * len(names))(*map(self._output, names))

    def _output(self, name: str) -> _Output:
        operation, _, index = name.partition(":")
        found = self._library.GraphOperationByName(self._graph, operation.encode())
        if not found:
            raise RuntimeError(f"there is no operation {operation}")
        return _Output(found, int(index or 0))


def installed_folders() -> tuple[Path, Path]:
    """Returns the folders of the libraries of the installed TensorFlow and TensorFlow Text."""
    # Found by their names, not imported.
    tensorflow, text = map(importlib.util.find_spec, ("tensorflow", "tensorflow_text"))
    return Path(tensorflow.origin).parent, Path(text.origin).parent / "python" / "ops"


@contextmanager
def open_session(path: Path) -> Iterator[BareModel]:
    """Opens an exported version in a Session of the C library."""
    library = Library(*installed_folders())
    graph = library.NewGraph()
    with library.checked() as status:
        session = library.LoadSessionFromSavedModel(
            *(library.NewSessionOptions(), None, str(path).encode()),
            *((c_char_p * 1)(b"serve"), 1, graph, None, status),
        )
    try:
        yield BareModel(library, graph, session)
    finally:
        with library.checked() as status:
            library.CloseSession(session, status)
