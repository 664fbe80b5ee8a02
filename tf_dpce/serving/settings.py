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

# Larger requests are split, so that their size is not the operator's worry. Threads are left to
# the server on a CPU, which takes one a core. On a GPU few sizes are computed, or each new one
# would be tuned for anew; a batch waits longer, since it gains more.
BATCHING = {
    "batching-cpu.config": """\
max_batch_size { value: 1024 }
enable_large_batch_splitting { value: true }
max_execution_batch_size { value: 32 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 256 }
""",
    "batching-gpu.config": """\
max_batch_size { value: 1024 }
enable_large_batch_splitting { value: true }
max_execution_batch_size { value: 64 }
allowed_batch_sizes: 1
allowed_batch_sizes: 4
allowed_batch_sizes: 16
allowed_batch_sizes: 64
batch_timeout_micros { value: 5000 }
max_enqueued_batches { value: 256 }
num_batch_threads { value: 4 }
""",
}
CPU_BATCHING, GPU_BATCHING = BATCHING


def server_flags(
    folder: str,
    config: str = CONFIG_FILE,
    batching: str = CPU_BATCHING,
    grpc_port: int = GRPC_PORT,
    rest_port: int = REST_PORT,
) -> list[str]:
    """Returns the flags of TF Serving.

    Args:
        folder: the deployment, where the server sees it.
        config: the name of its `models.config` in there.
        batching: the name of its batching parameters in there.
        grpc_port: of gRPC.
        rest_port: of REST and the metrics.
    """
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
    ]
