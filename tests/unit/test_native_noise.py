"""What native libraries write to stderr: known noise is hidden, everything else arrives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.samples import image
from tf_dpce import native_noise
from tf_dpce.native_noise import filter_command

# As TensorFlow 2.20 writes them.
NOISE = b"""\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1732700000.123456   12345 gpu_device.cc:2022] Created device /device:GPU:0
2026-01-01 00:00:00.000000: E x/cuda_fft.cc:479] Unable to register cuFFT factory: Attempting \
to register factory for plugin cuFFT when one has already been registered
2026-01-01 00:00:00.000000: W tensorflow/core/framework/dataset.cc:993] Input of \
GeneratorDatasetOp::Dataset will not be optimized because it has no AsGraphDefInternal()
Corrupt JPEG data: premature end of data segment
Input file read error
2026-01-01 00:00:00.000000: E tensorflow/core/lib/jpeg/jpeg_mem.cc:329] Premature end of JPEG \
data. Stopped at line 28/75
"""
NO_GPU = b"""\
2026-01-01 00:00:00.000000: E x/cuda_platform.cc:51] failed call to cuInit: INTERNAL: CUDA error: \
Failed call to cuInit: UNKNOWN ERROR (303)
"""
REAL = b"""\
Input file read error: disk
E0000 00:00:1732700000.123456   12345 cuda_dnn.cc:522] Loaded runtime CuDNN library: 8.9.4 but \
source was compiled with: 9.3.0.
2026-01-01 00:00:00.000000: W x/bfc_allocator.cc:501] Allocator (GPU_0_bfc) ran out of memory
2026-01-01 00:00:00.000000: E x/cuda_platform.cc:51] failed call to cuInit: INTERNAL: CUDA error: \
Failed call to cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
2026-01-01 00:00:00.000000: I tensorflow_serving/model_servers/server.cc:430] Running gRPC
malloc(): corrupted top size
MemoryError

\xff\xfe no text
no end"""


def copied(content: bytes) -> bytes:
    return subprocess.run(filter_command(), input=content, stdout=subprocess.PIPE).stdout


def test_known_lines_are_hidden_and_all_others_pass(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(native_noise, "_DRIVERS", ())
    mixed = b"".join(NOISE + NO_GPU + line for line in REAL.splitlines(keepends=True))
    assert copied(mixed) == copied(REAL) == REAL


def test_that_no_gpu_is_found_is_no_noise_beside_a_driver(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native_noise, "_DRIVERS", ("/dev/null",))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert copied(NO_GPU) == NO_GPU
    # The user hides the GPUs.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert copied(NO_GPU) == b""


PROGRAM = """
import os, subprocess, sys
from tf_dpce.native_noise import without_noise
with without_noise():
    os.write(2, b"Input file read error\\n")
    child = "import os; os.write(2, b'Input file read error\\\\n'); raise KeyError('child')"
    subprocess.run([sys.executable, "-c", child])
    print("in Python", file=sys.stderr)
    os.write(2, b"last words")
    {end}
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("end", "status", "last"),
    [
        ("os.abort()", -6, "last words"),
        ("os.kill(os.getpid(), 9)", -9, "last words"),
        ("os.execvp('sh', ['sh', '-c', 'echo, >&2'])", 127, "echo,: not found"),
        ("raise ValueError('wrong')", 1, "ValueError: wrong"),
    ],
)
def test_last_words_arrive_however_a_process_ends(run_program, project_root, end, status, last):
    program = PROGRAM.format(end=end)
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=project_root, capture_output=True, text=True
    )
    assert answer.returncode == status and "file read" not in answer.stderr
    for words in ("KeyError: 'child'", "in Python", "last words", last):
        assert words in answer.stderr
    # Lines of Python are not broken by the unfinished one.
    assert "in Python" in answer.stderr.splitlines()


@pytest.mark.full
@pytest.mark.process
def test_tensorflow_starts_and_reads_a_damaged_image_without_a_word(
    project_root: Path, tmp_path: Path
):
    (tmp_path / "cut.jpg").write_bytes(image()[:-40])
    program = f"""
from pipelines._verb import run_verb, verb_parser
def run(arguments):
    import tensorflow as tf
    tf.config.list_logical_devices()
    contents = tf.io.read_file({str(tmp_path / "cut.jpg")!r})
    tf.io.decode_jpeg(contents, try_recover_truncated=True)
run_verb(lambda: verb_parser("count", ""), run, [])
"""
    said = {}
    for level in ("", "0"):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": level}
        if not level:
            del environment["TF_CPP_MIN_LOG_LEVEL"]
        command = [sys.executable, "-c", program]
        answer = subprocess.run(command, cwd=project_root, env=environment, capture_output=True)
        said[level] = answer.stderr.decode()
    # Whoever asks for everything gets it; otherwise the first could not fail.
    assert said[""] == "" and "JPEG" in said["0"]
