"""The rights of a run that makes TrainJobs: they fit Kubernetes' schema, and with Kubeflow's own cover every task's needs."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

FOLDER = Path(__file__).parents[3] / "pipeline" / "trainjob"
FILES = ("role.yaml", "runner-standalone.yaml", "runner-multi-user.yaml")
ACCOUNT = "dier-run"

# What a task of Kubeflow asks Kubernetes for as the run's account, with where it is asked. Sources: kubeflow/pipelines 2.17.0,
# argo-workflows 4.0.8.
NEEDED = {
    ("", "configmaps", "get"),  # driver and launcher: backend/src/v2/config/env.go:73, the ConfigMap kfp-launcher
    ("", "secrets", "get"),  # launcher: backend/src/v2/objectstore/object_store.go:278, :391, the object store's keys
    ("", "pods", "get"),  # launcher: backend/src/v2/component/launcher_v2.go:607, its own pod
    ("argoproj.io", "workflowtaskresults", "create"),  # Argo's executor: manifests/quick-start/base/executor/emissary
    ("argoproj.io", "workflowtaskresults", "patch"),
}
# manifests/kustomize/base/pipeline/pipeline-runner-role.yaml of kubeflow/pipelines 2.17.0, what of it matters here.
PIPELINE_RUNNER = {
    ("", "configmaps"): {"get", "watch", "list"},
    ("", "secrets"): {"get"},
    ("", "pods"): {"*"},
    ("", "pods/log"): {"*"},
    ("argoproj.io", "workflowtaskresults"): {"create", "patch"},
}
# In a profile: kubeflow-edit is made of manifests/kustomize/base/installs/multi-user/view-edit-cluster-roles.yaml (2.17.0) and of
# common/kubeflow-roles/base/cluster-roles.yaml of kubeflow/manifests f782bdb, again what matters here.
KUBEFLOW_EDIT = {
    ("", "configmaps"): {"get", "list", "watch", "create", "update", "patch", "delete"},
    ("", "secrets"): {"get", "list", "watch", "create", "update", "patch", "delete"},
    ("", "pods"): {"get", "list", "watch", "create", "update", "patch", "delete"},
    ("", "pods/log"): {"get", "list", "watch"},
    ("argoproj.io", "workflowtaskresults"): {"*"},
}
OURS = {("trainer.kubeflow.org", "trainjobs", verb) for verb in ("create", "get", "delete")}
OURS |= {("", "pods", "list"), ("", "pods/log", "get")}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def one(name: str, kind: str) -> dict[str, Any]:
    [found] = [document for document in documents(name) if document["kind"] == kind]
    return found


def granted() -> dict[tuple[str, str], set[str]]:
    rules = one("role.yaml", "Role")["rules"]
    return {(group, kind): set(rule["verbs"]) for rule in rules for group in rule["apiGroups"] for kind in rule["resources"]}


def missing(needed: set[tuple[str, str, str]], *roles: dict[tuple[str, str], set[str]]) -> set[tuple[str, str, str]]:
    verbs: dict[tuple[str, str], set[str]] = {}
    for role in roles:
        for what, allowed in role.items():
            verbs.setdefault(what, set()).update(allowed)
    return {(group, kind, verb) for group, kind, verb in needed if not {verb, "*"} & verbs.get((group, kind), set())}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_the_files_fit_kubernetes_schema(name: str, version: str) -> None:
    for document in documents(name):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_strict_schema_of_roles_refuses_what_it_does_not_know() -> None:
    rights = one("role.yaml", "Role")
    rights["rules"][0]["verb"] = ["get"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(rights, "1.37", strict=True)


def test_every_binding_is_of_the_account_that_the_file_makes() -> None:
    assert one("role.yaml", "ServiceAccount")["metadata"]["name"] == ACCOUNT
    bindings = {name: one(name, "RoleBinding") for name in FILES}
    for binding in bindings.values():
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": ACCOUNT}]
    assert bindings["role.yaml"]["roleRef"]["name"] == one("role.yaml", "Role")["metadata"]["name"]
    stock = {name: (bindings[name]["roleRef"]["kind"], bindings[name]["roleRef"]["name"]) for name in FILES[1:]}
    assert stock == {FILES[1]: ("Role", "pipeline-runner"), FILES[2]: ("ClusterRole", "kubeflow-edit")}


def test_our_rights_are_those_of_a_trainjob_and_no_more() -> None:
    assert {(group, kind, verb) for (group, kind), verbs in granted().items() for verb in verbs} == OURS


def test_our_rights_alone_end_in_the_first_driver_and_with_kubeflows_own_nothing_is_missing() -> None:
    """What the documentation once said, to bind the account to this Role alone, fails in the first driver."""
    assert missing(NEEDED, granted()) == NEEDED
    for stock in (PIPELINE_RUNNER, KUBEFLOW_EDIT):
        assert not missing(NEEDED | OURS, stock, granted())
