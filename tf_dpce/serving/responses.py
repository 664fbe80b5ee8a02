"""What a development server answers about its models, over REST and gRPC alike."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse, ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec

from tf_dpce.serving.errors import STATUSES, ServingError
from tf_dpce.serving.servable_manager import ServableManager

SIGNATURES = "signature_def"


def model_status(models: ServableManager, spec: ModelSpec) -> GetModelStatusResponse:
    """Returns the state of each version of a model, or of the one that is asked for."""
    response = GetModelStatusResponse()
    for servable in models.states(spec):
        state = ModelVersionStatus.State.Value(servable.state)
        status = response.model_version_status.add(version=servable.number, state=state).status
        status.error_code = STATUSES["UNKNOWN"][0] if servable.error else 0
        status.error_message = servable.error
    return response


def model_metadata(
    models: ServableManager, request: GetModelMetadataRequest
) -> GetModelMetadataResponse:
    """Returns the signatures of a version."""
    if not request.metadata_field:
        message = "GetModelMetadataRequest must specify at least one metadata_field"
        raise ServingError("INVALID_ARGUMENT", message)
    for name in request.metadata_field:
        if name != SIGNATURES:
            raise ServingError("INVALID_ARGUMENT", f"Metadata field {name} is not supported")
    response, signatures = GetModelMetadataResponse(), SignatureDefMap()
    with models.use(request.model_spec) as servable:
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.number
        for name, signature in servable.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
    response.metadata[SIGNATURES].Pack(signatures)
    return response


def status_json(models: ServableManager, spec: ModelSpec) -> dict[str, Any]:
    """Returns `model_status` for REST."""
    return _json(model_status(models, spec))


def metadata_json(models: ServableManager, spec: ModelSpec) -> dict[str, Any]:
    """Returns `model_metadata` for REST."""
    request = GetModelMetadataRequest(model_spec=spec, metadata_field=[SIGNATURES])
    response = model_metadata(models, request)
    signatures = SignatureDefMap()
    response.metadata[SIGNATURES].Unpack(signatures)
    metadata = {SIGNATURES: _json(signatures)}
    return {"model_spec": _json(response.model_spec), "metadata": metadata}


def _json(message: Any) -> dict[str, Any]:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
