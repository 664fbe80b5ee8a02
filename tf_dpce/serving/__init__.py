"""Serving: TF Serving set up and asked; a development server where it is not installed.

client          images and sentences to a server, vectors back         `Client`, `AsyncClient`
deployment      the folder from which TF Serving is run                  `write_deployment`
labels          which version is stable and which is tried               `promote`, `rollback`
launch          which server this machine has, and its command
development     the same REST and gRPC surface, for development only     `development_server`
"""

from __future__ import annotations

from tf_dpce.serving.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]
