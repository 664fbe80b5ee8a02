"""A server that speaks Milvus's protocol over a port, which can be stopped and started again.

It is Milvus Lite, with what a real server has and it lacks: parameters of filters, and a token.
"""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from pymilvus.grpc_gen import milvus_pb2_grpc

from tf_dpce.search.milvus.connection import _literal


class ServerWithParameters(MilvusServicer):
    def GetVersion(self, request, context):
        answer = super().GetVersion(request, context)
        answer.version = "v2.6.4"
        return answer

    def Query(self, request, context):
        request.expr = _filled(request.expr, request.expr_template_values)
        return super().Query(request, context)

    def Delete(self, request, context):
        request.expr = _filled(request.expr, request.expr_template_values)
        return super().Delete(request, context)

    def Search(self, request, context):
        request.dsl = _filled(request.dsl, request.expr_template_values)
        return super().Search(request, context)


def _filled(expression: str, parameters: Any) -> str:
    """Puts parameters into an expression, which must hold no values of its own."""
    assert not set("'\"[") & set(expression), expression
    return expression.format(**{name: _literal(_value(parameters[name])) for name in parameters})


def _value(parameter: Any) -> Any:
    value = getattr(parameter, parameter.WhichOneof("val"))
    if parameter.WhichOneof("val") != "array_val":
        return value
    return list(getattr(value, value.WhichOneof("data")).data)


class _Doorman(grpc.ServerInterceptor):
    def __init__(self, token: str) -> None:
        self._wanted = base64.b64encode(token.encode()).decode()

    def intercept_service(self, continuation, details):
        if dict(details.invocation_metadata).get("authorization") == self._wanted:
            return continuation(details)

        def refuse(request, context):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure")

        return grpc.unary_unary_rpc_method_handler(refuse)


class Server:
    """Serves a folder from now until `stop`; `start` serves it again at the same port."""

    def __init__(self, folder: Path, token: str = "") -> None:
        self._folder, self._token, self._port = folder, token, 0
        self.start()

    def start(self) -> None:
        self._database = MilvusLite(str(self._folder))
        doormen = [_Doorman(self._token)] if self._token else []
        self._server = grpc.server(ThreadPoolExecutor(4), interceptors=doormen)
        servicer = ServerWithParameters(self._database)
        milvus_pb2_grpc.add_MilvusServiceServicer_to_server(servicer, self._server)
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(grace=None).wait()
        self._database.close()

    def uri(self, name: str = "") -> str:
        return f"http://127.0.0.1:{self._port}" + (f"#{name}" if name else "")
