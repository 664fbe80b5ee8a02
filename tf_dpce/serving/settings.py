"""How TF Serving is set up: its flags, batching and monitoring."""

from __future__ import annotations

IMAGE = "tensorflow/serving"
BINARY = "tensorflow_model_server"
GRPC_PORT = 8500
REST_PORT = 8501

CONFIG_FILE = "models.config"
MONITORING_FILE = "monitoring.config"
METRICS_PATH = "/monitoring/prometheus/metrics"
MONITORING = f'prometheus_config {{ enable: true path: "{METRICS_PATH}" }}\n'

# Of a container. The server would count the cores of the whole node, whatever limit it has.
CORES = 4

# Larger requests are split, so that their size is not the operator's worry. Without a container
# the server takes a thread a core.
HOST_BATCHING = """\
max_batch_size { value: 1024 }
enable_large_batch_splitting { value: true }
max_execution_batch_size { value: 32 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 256 }
"""
# On a GPU few sizes are computed, or each new one would be tuned for anew. What is missing to the
# next size is filled with images that are decoded as well, so no step is larger than half. A
# batch waits longer, since it gains more.
_GPU_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_GPU_SIZE_LINES = "".join(f"allowed_batch_sizes: {size}\n" for size in _GPU_SIZES)
BATCHING = {
    "batching-cpu.config": f"{HOST_BATCHING}num_batch_threads {{ value: {CORES} }}\n",
    "batching-gpu.config": f"""\
max_batch_size {{ value: 1024 }}
enable_large_batch_splitting {{ value: true }}
max_execution_batch_size {{ value: {_GPU_SIZES[-1]} }}
{_GPU_SIZE_LINES}\
batch_timeout_micros {{ value: 5000 }}
max_enqueued_batches {{ value: 256 }}
num_batch_threads {{ value: {CORES} }}
""",
}
CPU_BATCHING, GPU_BATCHING = BATCHING


def server_flags(
    folder: str,
    config: str = CONFIG_FILE,
    batching: str = CPU_BATCHING,
    grpc_port: int = GRPC_PORT,
    rest_port: int = REST_PORT,
    cores: int | None = CORES,
) -> list[str]:
    """Returns the flags of TF Serving.

    Args:
        folder: the deployment, where the server sees it.
        config: the name of its `models.config` in there.
        batching: the name of its batching parameters in there.
        grpc_port: of gRPC.
        rest_port: of REST and the metrics.
        cores: that it may use; None leaves all to it.
    """
    threads = (
        []
        if cores is None
        else [f"--tensorflow_{pool}_op_parallelism={cores}" for pool in ("intra", "inter")]
    )
    return [
        f"--model_config_file={folder}/{config}",
        "--model_config_file_poll_wait_seconds=5",
        # Without it no label could stand in the configuration at the start.
        "--allow_version_labels_for_unavailable_models",
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        "--enable_batching",
        f"--batching_parameters_file={folder}/{batching}",
        f"--monitoring_config_file={folder}/{MONITORING_FILE}",
        *threads,
    ]
