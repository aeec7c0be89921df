"""What KServe takes of an InferenceService: the fields that dier writes, others refused, as its CRD and its webhook have them.

By hand from kserve/kserve v0.20.0, whose CRD is 2 MB for every kind of pod:
- fields and types: config/crd/full/serving.kserve.io_inferenceservices.yaml, v1beta1; spec.predictor and modelFormat.name needed
- the name: pkg/apis/serving/v1beta1/inference_service_validation.go:46,55,468-474
- storage schemes: pkg/controller/v1beta1/inferenceservice/utils/utils.go:48,437-441
- the runtime takes format mlflow by protocol v2: config/runtimes/kserve-mlserver.yaml
"""

from typing import Any

import jsonschema

TEXT = {"type": "string", "minLength": 1}
QUANTITIES = {"type": "object", "additionalProperties": {"type": ["string", "number"], "pattern": r"^[0-9.]+([EPTGMk]i?|m)?$"}}


def _closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


MODEL = _closed(
    {
        "modelFormat": _closed({"name": {"const": "mlflow"}, "version": TEXT}, "name"),
        "runtime": {"const": "kserve-mlserver"},
        "protocolVersion": {"const": "v2"},
        "storageUri": {"type": "string", "pattern": "^(gs|s3|pvc|file|https|http|hdfs|webhdfs|oci|oci\\+native|hf)://"},
        "image": TEXT,
        "resources": _closed({"requests": QUANTITIES, "limits": QUANTITIES}),
    },
    "modelFormat",
    "storageUri",
)
SCHEMA = _closed(
    {
        "apiVersion": {"const": "serving.kserve.io/v1beta1"},
        "kind": {"const": "InferenceService"},
        "metadata": _closed(
            {
                "name": {"type": "string", "pattern": r"^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
                "namespace": TEXT,
                "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "name",
        ),
        "spec": _closed({"predictor": _closed({"serviceAccountName": TEXT, "model": MODEL}, "model")}, "predictor"),
    },
    "apiVersion",
    "kind",
    "metadata",
    "spec",
)


def check(manifest: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError."""
    jsonschema.validate(manifest, SCHEMA, cls=jsonschema.Draft202012Validator)
