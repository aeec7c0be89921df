"""The Trainer's published schema, made strict: what a cluster refuses is refused here too, unknown fields above all."""

from typing import Any

import jsonschema
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob

NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""The custom resource's own rule for names, which the models do not carry."""


def strict_schema() -> dict[str, Any]:
    """JSON schema of a TrainJob manifest. A quantity may be text or a number; every other object takes its known fields only."""
    schema: dict[str, Any] = TrainerV1alpha1TrainJob.model_json_schema(by_alias=True)
    for name, part in schema["$defs"].items():
        if name.endswith("ResourceQuantity"):
            part.clear()
            part["type"] = ["string", "number"]
        else:
            part["additionalProperties"] = False
    schema["additionalProperties"] = False
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    schema["properties"]["apiVersion"] = {"const": "trainer.kubeflow.org/v1alpha1"}
    schema["properties"]["kind"] = {"const": "TrainJob"}
    named = {"properties": {"name": {"type": "string", "pattern": NAME, "maxLength": 63}}, "required": ["name"]}
    schema["properties"]["metadata"] = {"allOf": [{"$ref": "#/$defs/IoK8sApimachineryPkgApisMetaV1ObjectMeta"}, named]}
    return schema


def check(manifest: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError."""
    jsonschema.validate(manifest, strict_schema(), cls=jsonschema.Draft202012Validator)
