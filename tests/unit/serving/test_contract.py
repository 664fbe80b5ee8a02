"""What a server of TF Serving's surface answers, to the stock stubs and over plain REST."""

from __future__ import annotations

import base64
import json
import os
import threading

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.unit.serving.recorded_answers import (
    GRPC,
    REST,
    exchange,
    grpc_call,
    grpc_request,
    http_of,
    strings_of,
)
from tests.unit.serving.servers import (
    DEVELOPMENT,
    KIND,
    NAME,
    VERSION,
    ask_served,
    publish_again,
    wait_until,
)
from tf_dpce.export import ENDPOINTS
from tf_dpce.export.session_process import SessionModel
from tf_dpce.preprocessing import status

PREDICT = f"/v1/models/{NAME}:predict"


@pytest.fixture(scope="module")
def predictions(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def model_service(channel):
    return model_service_pb2_grpc.ModelServiceStub(channel)


def predict_request(signature="encode_text", values=(b"a dog",), version=None, **spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.CopyFrom(model_pb2.ModelSpec(**{"name": NAME, **spec}))
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    key = ENDPOINTS.get(signature, "text")
    request.inputs[key].CopyFrom(tf.make_tensor_proto(list(values), tf.string, [len(values)]))
    return request


def b64(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


@pytest.fixture(scope="module")
def model(exported):
    return SessionModel(exported)


@pytest.fixture(scope="module")
def batches(served) -> bool:
    """Whether the server batches: then it refuses this many rows."""
    return exchange(served, http_of({"rows": 1025}))[0] == 400


def expected_of(case: dict, batches: bool) -> str:
    if os.environ.get(KIND, DEVELOPMENT) == DEVELOPMENT:
        return case.get("development", case["gets"])
    if case.get("alone") or (case.get("batching") and not batches):
        pytest.skip("it would stop the server, or the server does not batch")
    return case["gets"]


def assert_outputs(found: dict, case: dict, model: SessionModel) -> None:
    """Compares outputs with those of the model in this process."""
    signature, strings = strings_of(case)
    expected = model.run(signature, {ENDPOINTS[signature]: strings})
    for key, value in found.items():
        value = np.reshape(value, np.shape(value)[len(case.get("shape", [1])) - 1 :])
        np.testing.assert_allclose(value, expected[key], atol=1e-5, err_msg=key)


def test_the_tables_have_all_requests_and_a_reason_for_each_departure():
    assert (len(REST), len(GRPC)) == (172, 62)
    for title, case in (*REST.items(), *GRPC.items()):
        assert ("development" in case) == ("because" in case), title


# --- gRPC -----------------------------------------------------------------------------------------


@pytest.mark.sentinel
@pytest.mark.parametrize("signature", ENDPOINTS)
def test_grpc_answers_what_was_recorded(predictions, recorded, signature):
    example = recorded[signature]
    answer = predictions.Predict(predict_request(signature, example.inputs), timeout=30)
    embeddings = tf.make_ndarray(answer.outputs["embedding"])
    np.testing.assert_allclose(embeddings, example.embeddings, atol=1e-5)
    codes = tf.make_ndarray(answer.outputs["status"])
    np.testing.assert_array_equal(codes, example.statuses)
    assert (answer.model_spec.name, answer.model_spec.signature_name) == (NAME, signature)


def test_grpc_returns_the_signatures_and_the_state(predictions, model_service, width):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = NAME
    answer = predictions.GetModelMetadata(request, timeout=30)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert set(ENDPOINTS) <= set(signatures.signature_def)
    shape = signatures.signature_def["encode_text"].outputs["embedding"].tensor_shape
    assert [side.size for side in shape.dim] == [-1, width]
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=answer.model_spec)
    (state,) = model_service.GetModelStatus(request, timeout=30).model_version_status
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert (state.version, state.state, state.status.error_code) == (VERSION, available, 0)


@pytest.mark.parametrize("title", GRPC)
def test_grpc_answers_as_recorded(channel, model, batches, title):
    case = GRPC[title]
    expected = expected_of(case, batches)
    status, answer = grpc_call(channel, case, grpc_request(case).SerializeToString())
    assert status == expected
    if status == "OK" and "call" not in case:
        answer = predict_pb2.PredictResponse.FromString(answer)
        outputs = {key: tf.make_ndarray(value) for key, value in answer.outputs.items()}
        assert set(outputs) == set(case.get("outputs", ["embedding", "status"]))
        assert_outputs(outputs, case, model)


# --- REST -----------------------------------------------------------------------------------------


@pytest.mark.sentinel
@pytest.mark.parametrize("signature", ENDPOINTS)
def test_rest_answers_in_columns_and_in_rows(served, recorded, signature):
    example = recorded[signature]
    contents = [b64(content) for content in example.inputs]
    named = [{ENDPOINTS[signature]: content} for content in contents]
    for body in ({"inputs": contents}, {"instances": contents}, {"instances": named}):
        code, answer = ask_served(served, PREDICT, {"signature_name": signature, **body})
        assert code == 200
        rows = answer.get("predictions")
        found = answer.get("outputs") or {key: [row[key] for row in rows] for key in rows[0]}
        assert set(found) == {"embedding", "status"}
        np.testing.assert_allclose(found["embedding"], example.embeddings, atol=1e-5)
        assert found["status"] == example.statuses.tolist()


def test_rest_takes_captions_as_they_are(served, caption):
    texts = [caption, "naïve 狗", ""]
    body = {"signature_name": "encode_text", "inputs": {"text": texts}}
    code, answer = ask_served(served, PREDICT, body)
    assert code == 200
    assert answer["outputs"]["status"][::2] == [status.OK, status.EMPTY]
    # The same as base64 of their UTF-8, and with characters escaped or not.
    body["inputs"]["text"] = [*(b64(text.encode()) for text in texts[:2]), ""]
    assert ask_served(served, PREDICT, body)[1] == answer
    plain = json.dumps(body, ensure_ascii=False).encode()
    assert ask_served(served, PREDICT, plain)[1] == answer


def test_rest_returns_state_and_signatures(served):
    code, state = ask_served(served, f"/v1/models/{NAME}/versions/{VERSION}")
    assert code == 200
    (only,) = state["model_version_status"]
    assert (only["version"], only["state"]) == (str(VERSION), "AVAILABLE")
    assert only["status"] == {"error_code": "OK", "error_message": ""}
    code, metadata = ask_served(served, f"/v1/models/{NAME}/labels/stable/metadata")
    assert code == 200
    assert metadata["model_spec"]["name"] == NAME and metadata["model_spec"]["version"] == str(
        VERSION
    )
    signature = metadata["metadata"]["signature_def"]["signature_def"]["encode_image"]
    assert signature["inputs"]["image"]["dtype"] == "DT_STRING"


GOOD = {"signature_name": "encode_text", "inputs": ["a dog"]}


@pytest.mark.parametrize("title", REST)
def test_rest_answers_as_recorded(served, model, batches, title):
    case = REST[title]
    expected = expected_of(case, batches)
    status, kind, answer = exchange(served, http_of(case))
    assert f"{status} {kind}" == expected, answer
    if kind in ("outputs", "predictions"):
        rows = answer.get("predictions")
        found = answer.get("outputs") or {key: [row[key] for row in rows] for key in rows[0]}
        assert set(found) == {"embedding", "status"}
        assert_outputs(found, case, model)


# --- new versions ---------------------------------------------------------------------------------


@pytest.mark.full
def test_a_new_version_takes_over_without_a_failed_request(served, predictions):
    if served.models is None:
        pytest.skip("the models of a server elsewhere are out of reach")
    answered, stop = ([], []), threading.Event()

    def keep_asking(answers: list[tuple[int, int]]) -> None:
        while not stop.is_set():
            answer = predictions.Predict(predict_request(), timeout=30)
            code, _ = ask_served(served, PREDICT, GOOD)
            answers.append((answer.model_spec.version.value, code))

    threads = [threading.Thread(target=keep_asking, args=[answers]) for answers in answered]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: min(map(len, answered)) > 5)
        number = int(publish_again(served.models).name)
        wait_until(lambda: all(answers[-1][0] == number for answers in answered))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    # Nothing but answers, to each who asks first of the old version, then of the new one.
    for answers in answered:
        assert {code for _, code in answers} == {200}
        found = [version for version, _ in answers]
        assert found == sorted(found) and set(found) == {number - 1, number}
    # The label stays where it was.
    answer = predictions.Predict(predict_request(version_label="stable"), timeout=30)
    assert answer.model_spec.version.value == VERSION
