"""What the API server of Kubeflow Pipelines 2.17.0 takes and refuses, each rule with the line of its source that it follows.

Paths are below `backend/src/` of kubeflow/pipelines 2.17.0, unless they say otherwise. Nothing here is its code.
"""

import json
import re
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

INVALID, NOT_FOUND, EXISTS, ABORTED, INTERNAL = (400, 3), (404, 5), (409, 6), (409, 10), (500, 13)
"""HTTP's status and gRPC's code, as grpc-gateway pairs them: common/util/error.go:139-206 says which error has which."""
ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
FIELDS = {
    # apiserver/model/: pipeline.go:78, pipeline_version.go:78, run.go:370, job.go:217; experiments have the same keys
    "experiments": {"experiment_id", "id", "display_name", "name", "created_at", "description", "namespace", "storage_state"},
    "pipelines": {"pipeline_id", "id", "display_name", "name", "created_at", "description", "namespace"},
    "versions": {"pipeline_version_id", "id", "display_name", "name", "created_at", "status", "description", "pipeline_spec"},
    "runs": {"run_id", "id", "display_name", "name", "created_at", "finished_at", "storage_state", "state", "experiment_id"},
    "recurringruns": {"recurring_run_id", "id", "display_name", "name", "created_at", "updated_at", "description"},
}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The fast one: a server that thinks for seconds over a pipeline would run into the tests' short time limits."""
PAGE, MOST = 20, 200  # apiserver/server/list_request_util.go:32


class Refusal(Exception):
    """What the server says instead of yes."""

    def __init__(self, kind: tuple[int, int], message: str) -> None:
        super().__init__(message)
        self.status, self.code = kind


def listed(what: str, known: list[dict[str, Any]], query: dict[str, str]) -> tuple[list[dict[str, Any]], str]:
    """A page of what matches the filter, and the token of the next one."""
    allowed = FIELDS[what]
    found = list(known)
    for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
        key, value = predicate["key"], predicate.get("stringValue", predicate.get("string_value"))
        if key not in allowed:  # apiserver/filter/filter.go:134
            raise Refusal(INVALID, f'no support for filtering on unrecognized field "{key}"')
        match predicate["operation"]:
            case 1:
                found = [one for one in found if one.get(key, "") == value]
            case 2:
                found = [one for one in found if one.get(key, "") != value]
            case 9:
                found = [one for one in found if value in one.get(key, "")]
            case other:
                raise AssertionError(f"the stand-in knows no operation {other} of filters")
    if query.get("sort_by"):
        field, _, order = query["sort_by"].partition(" ")
        if field not in allowed or order not in ("", "asc", "desc"):  # list_request_util.go:80
            raise Refusal(INVALID, f"Cannot sort on field {field}")
        found.sort(key=lambda one: str(one.get(field, "")), reverse=order == "desc")
    size = min(int(query.get("page_size") or PAGE), MOST)
    start = int(query.get("page_token") or 0)
    return found[start : start + size], str(start + size) if start + size < len(found) else ""


def spec_of(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A pipeline's documents, parsed strictly (apiserver/template/v2_template.go:195)."""
    try:
        documents = [document for document in yaml.load_all(text, Loader=LOADER) if document is not None]
        spec, platform = documents[0], documents[1] if len(documents) > 1 else {}
        parsed(spec, platform)
    except (yaml.YAMLError, IndexError) as error:
        raise Refusal(INVALID, f"unable to decode yaml document: {error}") from error
    return spec, platform


def parsed(spec: dict[str, Any], platform: dict[str, Any]) -> None:
    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    except json_format.ParseError as error:
        raise Refusal(INVALID, f"Failed to parse the pipeline: {error}") from error


def check_inputs(spec: dict[str, Any], given: dict[str, Any]) -> None:
    """apiserver/template/v2_template.go:442."""
    known = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    kinds: dict[str, tuple[type, ...]] = {
        "STRUCT": (dict,),
        "LIST": (list,),
        "STRING": (str,),
        "BOOLEAN": (bool,),
        "NUMBER_INTEGER": (int, float),
        "NUMBER_DOUBLE": (int, float),
    }
    for name, parameter in known.items():
        if name not in given and "defaultValue" not in parameter and not parameter.get("isOptional"):
            raise Refusal(INVALID, f"parameter {name} is not optional, yet has neither default value nor user provided value")
        if name in given and not isinstance(given[name], kinds[parameter["parameterType"]]):
            raise Refusal(INVALID, f"input parameter {name} requires type {parameter['parameterType'].lower()}")
    if extra := sorted(set(given) - set(known)):
        raise Refusal(INVALID, f"parameter {extra[0]} provided is not required by pipeline")


def check_recurring(run: dict[str, Any]) -> None:
    """apiserver/server/api_converter.go:2040-2090."""
    if not run.get("display_name"):
        raise Refusal(INTERNAL, "Internal Server Error")
    if not 1 <= int(run.get("max_concurrency", 0)) <= 10:
        raise Refusal(
            INVALID, f"Max concurrency of a recurring run must be at least 1 and at most 10. Received {run.get('max_concurrency')}"
        )
    cron = (run.get("trigger") or {}).get("cron_schedule", {}).get("cron")
    if cron is not None and (wrong := wrong_in_cron(cron)):
        raise Refusal(INVALID, f"Schedule cron is not a supported format(https://godoc.org/github.com/robfig/cron). Error: {wrong}")


MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
BOUNDS = ((0, 59, []), (0, 59, []), (0, 23, []), (1, 31, []), (1, 12, MONTHS), (0, 6, DAYS))


def wrong_in_cron(text: str) -> str:
    """Why robfig/cron 1.2 (kubeflow/pipelines' go.mod:43) does not take it, seconds first; empty = fine."""
    if re.fullmatch(r"@(yearly|annually|monthly|weekly|daily|midnight|hourly|every ([0-9.]+(h|m|s|ms))+)", text):
        return ""
    fields = text.split()
    if len(fields) not in (5, 6):
        return f"Expected 5 to 6 fields, found {len(fields)}: {text}"
    for field, (low, high, names) in zip(fields, BOUNDS, strict=False):
        for part in field.split(","):
            span, _, step = part.partition("/")
            start, _, end = span.partition("-")
            if step and not (step.isdigit() and int(step) > 0):
                return f"Failed to parse int from {step}"
            if span in ("*", "?"):
                continue
            for bound in (start, end or start):
                number = names.index(bound.lower()) + low if bound.lower() in names else int(bound) if bound.isdigit() else None
                if number is None:
                    return f"Failed to parse int from {bound}"
                if not low <= number <= high:
                    return f"{bound} is outside {low} to {high}: {part}"
    return ""
