"""Serving: a client, TF Serving's deployment, and a development server.

client          images and captions to a server, embeddings back       `Client`, `AsyncClient`
deployment      the folder from which TF Serving is run                  `write_deployment`
labels          which version is stable and which is tried               `promote`, `roll_back`
tf_serving      TF Serving's flags and commands
http_server     an application on a port of this machine                `listen`, `serving`
dev_server      the same REST and gRPC surface, for development only     `development_server`
"""

from __future__ import annotations

from tf_dpce.serving.async_client import AsyncClient
from tf_dpce.serving.client import Client

__all__ = ["AsyncClient", "Client"]
