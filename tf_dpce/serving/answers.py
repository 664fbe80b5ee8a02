"""What a development server says about its models, for both of its surfaces."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelVersionStatus,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec

from tf_dpce.serving.errors import STATUSES, ServingError
from tf_dpce.serving.models import Models

SIGNATURES = "signature_def"


def model_status(models: Models, request: GetModelStatusRequest) -> GetModelStatusResponse:
    """Returns the state of each version of a model, or of the one asked for."""
    answer = GetModelStatusResponse()
    for number, held in models.states(request.model_spec).items():
        state = ModelVersionStatus.State.Value(held.state)
        status = answer.model_version_status.add(version=number, state=state)
        status.status.error_code = STATUSES["UNKNOWN"][0] if held.error else 0
        status.status.error_message = held.error
    return answer


def model_metadata(models: Models, request: GetModelMetadataRequest) -> GetModelMetadataResponse:
    """Returns the signatures of a version."""
    _check_fields(request)
    answer = GetModelMetadataResponse()
    with models.use(request.model_spec) as version:
        answer.model_spec.name = version.name
        answer.model_spec.version.value = version.number
        signatures = SignatureDefMap()
        for name, signature in version.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
    answer.metadata[SIGNATURES].Pack(signatures)
    return answer


def metadata_json(models: Models, spec: ModelSpec) -> dict[str, Any]:
    """Returns the same for REST."""
    request = GetModelMetadataRequest(model_spec=spec, metadata_field=[SIGNATURES])
    answer = model_metadata(models, request)
    signatures = SignatureDefMap()
    answer.metadata[SIGNATURES].Unpack(signatures)
    options = dict(preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return {
        "model_spec": MessageToDict(answer.model_spec, **options),
        "metadata": {SIGNATURES: MessageToDict(signatures, **options)},
    }


def _check_fields(request: GetModelMetadataRequest) -> None:
    if not request.metadata_field:
        message = "GetModelMetadataRequest must specify at least one metadata_field"
        raise ServingError("INVALID_ARGUMENT", message)
    for field in request.metadata_field:
        if field != SIGNATURES:
            message = f"Metadata field {field} is not supported"
            raise ServingError("INVALID_ARGUMENT", message)
