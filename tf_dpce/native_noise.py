"""Keeps known noise of native libraries out of stderr, and passes everything else.

TensorFlow, XLA and libjpeg write to file descriptor 2 past Python. `without_noise` puts `sed`
between that descriptor and the screen: a process of its own, so that the last words of a process
that crashes or is killed still arrive. What child processes write is filtered too. Python's own
stderr, which has tracebacks, the log and bars, goes to the screen directly.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LEVEL = "TF_CPP_MIN_LOG_LEVEL"

# A line that fits one of these is known to mean nothing for what is computed.
_NOISE = (
    # What XLA says before anybody set up its log, and at the start of a GPU.
    "^WARNING: All log messages before absl::InitializeLog",
    r"^I0000 00:00:[0-9.]+ +[0-9]+ [^ ]+\.cc:[0-9]+\] ",
    # Plug-ins of XLA are linked in twice.
    "Unable to register cu(FFT|DNN|BLAS) factory: Attempting to register factory",
    "computation placer already registered",
    # A generator, which cannot be made part of a graph.
    "Input of GeneratorDatasetOp::Dataset will not be optimized",
    # A faster kernel for bytes, which a processor lacks.
    r"util\.cc:[0-9]+\] oneDNN supports DT_U?INT8 only on platforms with AVX-512",
    # libjpeg and libpng do not say which image they mean. The library does, if it is unusable.
    "^(Corrupt JPEG data: |Premature end of JPEG file|Input file read error$|libpng warning: )",
    r"jpeg_mem\.cc:[0-9]+\] Premature end of JPEG data",
    # What LiteRT's converter says of every model, and its runtime of every start.
    r"\] Ignored (output_format|drop_control_dependency)\.$",
    "^fully_quantize: [01], inference_type: ",
    r"flatbuffer_export\.cc:[0-9]+\] Skipping runtime version metadata in the model\.",
    r"^INFO: Created TensorFlow Lite XNNPACK delegate for CPU\.$",
)
_NO_GPU = r"failed call to cuInit: .*(UNKNOWN ERROR \(303\)|CUDA_ERROR_NO_DEVICE)"
# Drivers of NVIDIA, under Linux and under Windows: beside one it is no noise that there is no GPU.
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")

_PATIENCE_SECONDS = 0.2


@contextmanager
def without_noise() -> Iterator[None]:
    """Keeps the known noise of native libraries out of stderr within the block.

    It does nothing within another such block; if somebody else has replaced `sys.stderr`, as pytest
    and Jupyter do; and if TF_CPP_MIN_LOG_LEVEL is 0, which asks for everything.

    Example:
        >>> with without_noise():
        ...     tf.constant(1.0).numpy()
        np.float32(1.0)
    """
    before = sys.stderr
    if not before or before is not sys.__stderr__ or os.environ.get(LEVEL) == "0":
        yield
        return
    before.flush()
    # It ends when nobody writes any more. Ctrl-C is not meant for it: its session is another.
    filtering = subprocess.Popen(
        filter_command(), stdin=subprocess.PIPE, stdout=before, start_new_session=True
    )
    # It stays open, because loggers of Python hold on to it.
    shown = os.fdopen(os.dup(before.fileno()), "w", 1, before.encoding, before.errors)
    os.dup2(filtering.stdin.fileno(), before.fileno())
    filtering.stdin.close()
    sys.stderr = shown
    try:
        yield
    finally:
        sys.stderr = before
        os.dup2(shown.fileno(), before.fileno())
        # Children that outlive the block may still write.
        with suppress(subprocess.TimeoutExpired):
            filtering.wait(_PATIENCE_SECONDS)


def filter_command() -> list[str]:
    """Returns the command that copies stdin to stdout without what is noise on this machine."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    no_gpu = hidden or not any(map(os.path.exists, _DRIVERS))
    noise = "|".join([*_NOISE, *[_NO_GPU] * no_gpu])
    # A bar may stand in the last line of a terminal: it is erased, and drawn again below.
    redraws = os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb"
    # In bytes, because what libraries write need not be UTF-8.
    erase = ["-e", "s/^/\r\x1b[K/"] if redraws else []
    return ["env", "LC_ALL=C", "sed", "-u", "-E", "-e", f"/{noise}/d", *erase]
