"""What Katib takes of an Experiment, and what it reads of a trial. Its CRD has no schema; its client and its webhook have rules.

Fields: the models of `kubeflow-katib-api` 0.19.0, unknown ones refused. By hand from kubeflow/katib v0.19.0:
- the webhook: pkg/webhook/v1beta1/experiment/validator/validator.go: name 86-95, counts 97-119, objective 181-198,
  parameters 240-285, trial template 288-425 (each parameter used, each use a parameter, no name and namespace, a real Job)
- a trial's command: pkg/webhook/v1beta1/pod/utils.go:146-192: command and args joined by blanks behind sh -c, output to a file
- what is read: pkg/metricscollector/v1beta1/common/const.go:47 and file-metricscollector/file-metricscollector.go:74-133
"""

import copy
import re
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from kubeflow_katib_api.models.v1beta1_experiment import V1beta1Experiment

FILTER = re.compile(r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)")
PARAMETER = "${trialParameters.%s}"
USE = re.compile(r"\$\{trialParameters\..+?\}")


def check(experiment: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError or AssertionError."""
    jsonschema.validate(experiment, _strict_schema(), cls=jsonschema.Draft202012Validator)
    name, spec = experiment["metadata"]["name"], experiment["spec"]
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= 40
    assert 0 < spec["parallelTrialCount"] <= spec["maxTrialCount"]
    assert 0 <= spec["maxFailedTrialCount"] <= spec["maxTrialCount"]
    objective = spec["objective"]
    assert objective["type"] in ("minimize", "maximize")
    assert objective["objectiveMetricName"] not in objective.get("additionalMetricNames", [])
    assert spec["algorithm"]["algorithmName"]
    assert spec["metricsCollectorSpec"]["collector"]["kind"] in ("StdOut", "File")
    for parameter in spec["parameters"]:
        space = parameter["feasibleSpace"]
        if parameter["parameterType"] in ("double", "int"):
            assert {"min", "max"} <= space.keys() <= {"min", "max", "step", "distribution"}
        else:
            assert space.keys() == {"list"}
    _check_trial(spec)


def _check_trial(spec: dict[str, Any]) -> None:
    template = spec["trialTemplate"]
    known = {parameter["name"] for parameter in spec["parameters"]}
    text = yaml.safe_dump(template["trialSpec"])
    for parameter in template["trialParameters"]:
        assert parameter["reference"] in known
        assert PARAMETER % parameter["name"] in text
        text = text.replace(PARAMETER % parameter["name"], "1")
    assert not USE.search(text)
    job = yaml.safe_load(text)
    assert not {"name", "namespace"} & job.get("metadata", {}).keys()
    kubernetes_validate.validate(job, "1.34", strict=True)
    containers = job["spec"]["template"]["spec"]["containers"]
    assert template["primaryContainerName"] in [container["name"] for container in containers]


def shell_line(experiment: dict[str, Any], log: str, **values: str) -> str:
    """What Katib gives to `sh -c` for a trial with these values of its parameters."""
    template = experiment["spec"]["trialTemplate"]
    (trial,) = template["trialSpec"]["spec"]["template"]["spec"]["containers"]
    line = " ".join([*trial["command"], *trial["args"], f"1>{log} 2>&1"])
    for name, value in values.items():
        line = line.replace(PARAMETER % name, value)
    assert not USE.search(line)
    return line


def collected(log: str, experiment: dict[str, Any]) -> dict[str, list[float]]:
    """The values that Katib's collector reads of a trial's output."""
    objective = experiment["spec"]["objective"]
    metrics = [objective["objectiveMetricName"], *objective.get("additionalMetricNames", [])]
    found: dict[str, list[float]] = {}
    for line in log.split("\n"):
        if any(metric in line for metric in metrics):
            for name, value, *_ in FILTER.findall(line):
                if name.strip() in metrics:
                    found.setdefault(name.strip(), []).append(float(value))
    return found


def _strict_schema() -> dict[str, Any]:
    schema: dict[str, Any] = copy.deepcopy(V1beta1Experiment.model_json_schema(by_alias=True))
    for part in [schema, *schema["$defs"].values()]:
        if "properties" in part:
            part["additionalProperties"] = False
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    schema["properties"]["apiVersion"] = {"const": "kubeflow.org/v1beta1"}
    schema["properties"]["kind"] = {"const": "Experiment"}
    return schema
