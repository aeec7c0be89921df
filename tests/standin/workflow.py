"""A run as Argo does it: templates, their tries, pods, exit hooks, and the end that a termination puts to it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.standin.cache import Cache
from tests.standin.clock import Clock
from tests.standin.cluster import Cluster
from tests.standin.driver import Driver, Patch
from tests.standin.errors import DriverError, LauncherError, PodRefused, PodStuck, StandInError
from tests.standin.launcher import Launcher
from tests.standin.making import make
from tests.standin.metadata import Metadata
from tests.standin.nodes import DONE, Node, Nodes
from tests.standin.package import Package
from tests.standin.pod import Ended, Pod, Run
from tests.standin.retry import Strategy, decide, strategy
from tests.standin.store import Store

DEADLINE = "Step exceeded its deadline"
Body = Callable[[Node, int, float | None], None]


@dataclass
class Servers:
    """What all runs share."""

    metadata: Metadata
    cache: Cache | None
    store: Store
    cluster: Cluster
    clock: Clock
    run_pod: Run
    stock: bool
    """Whether the workflow defaults of the stock manifests are there."""
    publish_logs: bool


@dataclass
class Workflow:
    """One run's workflow; kept and started again when the run is retried."""

    servers: Servers
    package: Package
    run_id: str
    name: str
    display_name: str
    driver: Driver
    values: dict[str, Any]
    nodes: Nodes
    create_time: str
    terminated: threading.Event = field(default_factory=threading.Event)
    pods: dict[str, Pod] = field(default_factory=dict)

    def terminate(self) -> None:
        """A deadline of zero. Argo 4.0.8 workflow/controller/exec_control.go:57: every pod but those of exit hooks."""
        self.terminated.set()
        for pod in list(self.pods.values()):
            if not pod.on_exit:
                pod.stop.set()

    def template(
        self, parent: Node | None, name: str, display: str, kind: str, template: str, rule: Strategy | None, body: Body
    ) -> Node:
        """A template's node, with a node for each try where it has a retry strategy.

        Argo 4.0.8 workflow/controller/operator.go:2330. What an earlier try of the run has done is not done again.
        """
        if kept := self.nodes.kept(name):
            return kept
        if rule is None:
            node = self.nodes.add(Node(name, display, kind, template), parent)
            return self._try(node, body, 0, None)
        outer = self.nodes.add(Node(name, display, "Retry", template, phase="Running", started=self.servers.clock.now()), parent)
        tries, deadline, first = 0, None, 0.0
        while True:
            inner = self.nodes.kept(f"{name}({tries})") or self._try(
                self.nodes.add(Node(f"{name}({tries})", f"{display}({tries})", kind, template), outer), body, tries, deadline
            )
            tries += 1
            first = first if tries > 1 else inner.started
            if inner.phase in DONE or self.terminated.is_set():  # operator.go:1025, 1031
                return self._end(outer, inner.phase, inner.message, inner.outputs)
            decision = decide(rule, tries, inner.phase, first, inner.finished, self.servers.clock.now())
            self.servers.clock.sleep(decision.wait)
            if not decision.again or self.terminated.is_set():
                return self._end(outer, decision.phase or inner.phase, decision.message or inner.message, inner.outputs)
            deadline = decision.deadline

    def _try(self, node: Node, body: Body, attempt: int, deadline: float | None) -> Node:
        node.phase, node.started = "Running", self.servers.clock.now()
        try:
            body(node, attempt, deadline)
        except PodRefused as error:  # operator.go:3216: the node is in error, which `OnError` tries again
            self._end(node, "Error", str(error))
        except StandInError as error:
            self._end(node, "Error", str(error))
        if not node.ended:
            self._end(node, "Succeeded")
        return node

    def _end(self, node: Node, phase: str, message: str = "", outputs: Any = None) -> Node:
        node.phase, node.message, node.finished = phase, message, self.servers.clock.now()
        if outputs is not None:
            node.outputs = outputs
        return node

    def stock(self) -> Strategy | None:
        """Of a template that asks for no retries. The stock manifests' default is every template's, graphs' and drivers' too."""
        return strategy(None, stock=self.servers.stock)

    def driver_pod(self, parent: Node, boundary: str, display: str, template: str, drive: Callable[[], Any], on_exit: bool) -> Node:
        """A driver: its pod ends with exit code 1 where it refuses, which is a failure, not an error."""

        def body(node: Node, attempt: int, deadline: float | None) -> None:
            if self.terminated.is_set() and not on_exit:
                self._end(node, "Failed", DEADLINE)
                return
            try:
                node.outputs = drive()
            except (DriverError, StandInError) as error:
                node.log = f"{error}\n"
                self._end(node, "Failed", "main: Error (exit code 1)")

        return self.template(parent, f"{boundary}.{display}", display, "Pod", template, self.stock(), body)

    def step_pod(self, parent: Node, boundary: str, task: str, spec: dict[str, Any], patch: Patch, on_exit: bool) -> Node:
        """The step's own pod, with the task's retries."""
        rule = strategy(spec.get("retryPolicy"), stock=self.servers.stock)
        labelled = f"metadata-{len(patch.annotations)}-{len(patch.labels)}-" if patch.annotations or patch.labels else ""
        template = f"{labelled}{'retry-' if 'retryPolicy' in spec else ''}system-container-impl"
        component = self.package.component(spec)

        def body(node: Node, attempt: int, deadline: float | None) -> None:
            if self.terminated.is_set() and not on_exit:
                self._end(node, "Failed", DEADLINE)
                return
            pod = self._pod(node, task, patch, attempt, "retryPolicy" in spec, on_exit)
            if pod is None:
                return
            if deadline is not None:  # operator.go:1112: the window is every further try's deadline
                left = deadline - self.servers.clock.now()
                pod.deadline = left if pod.deadline is None else min(pod.deadline, left)
            self._launch(node, pod, patch, component)

        return self.template(parent, f"{boundary}.executor", "executor", "Pod", template, rule, body)

    def _pod(self, node: Node, task: str, patch: Patch, attempt: int, retried: bool, on_exit: bool) -> Pod | None:
        """The pod, mounted; None where it never starts and somebody ended the run at last."""
        try:
            pod = make(
                patch,
                name=self.nodes.pod_name(node),
                node=node.name,
                run_id=self.run_id,
                run_name=self.name,
                task=task,
                attempt=attempt,
                retried=retried,
                cluster=self.servers.cluster,
                clock=self.servers.clock,
            )
        except PodStuck as error:
            node.phase, node.message = "Pending", str(error)
            self.terminated.wait()
            self._end(node, "Failed", DEADLINE)
            return None
        pod.on_exit = on_exit
        self.pods[pod.name] = pod
        if self.terminated.is_set() and not on_exit:
            pod.stop.set()
        return pod

    def _launch(self, node: Node, pod: Pod, patch: Patch, component: dict[str, Any]) -> None:
        servers = self.servers
        execution = servers.metadata.executions[patch.execution]
        launcher = Launcher(
            pod,
            execution,
            component,
            servers.metadata,
            servers.store,
            servers.cache,
            self.package.name,
            servers.publish_logs,
            servers.cluster.chown,
        )
        start = servers.clock.now()
        try:
            ended, said = launcher.run(servers.run_pod)
        finally:
            execution.seconds += servers.clock.now() - start
            servers.cluster.unmount(pod)
            self.pods.pop(pod.name, None)
        node.log = ended.log + "".join(f"{line}\n" for line in said)
        self._end(node, *self._assessed(ended, pod))

    def _assessed(self, ended: Ended, pod: Pod) -> tuple[str, str]:
        """Argo 4.0.8 workflow/controller/operator.go:1726. Argo sees the launcher's exit code, never the step's."""
        if self.terminated.is_set() and not pod.on_exit and pod.stop.is_set():  # exec_control.go:65
            return "Failed", DEADLINE
        if ended.deleted or pod.deleted:  # operator.go:1306; seen: tried again with the stock manifests
            return "Error", "pod deleted"
        if ended.deadline:
            return "Failed", "Pod was active on the node longer than the specified deadline"
        if ended.oom:
            return "Failed", "main: OOMKilled (exit code 137)"
        return ("Succeeded", "") if ended.code == 0 else ("Failed", f"main: Error (exit code {ended.code})")

    def importer_pod(self, parent: Node, boundary: str, display: str, publish: Callable[[], None]) -> Node:
        def body(node: Node, attempt: int, deadline: float | None) -> None:
            if self.terminated.is_set():
                self._end(node, "Failed", DEADLINE)
                return
            try:
                publish()
            except LauncherError as error:
                node.log = f"{error}\n"
                self._end(node, "Failed", "main: Error (exit code 1)")

        return self.template(parent, f"{boundary}.{display}", display, "Pod", "system-importer", self.stock(), body)

    def omit(self, parent: Node, boundary: str, display: str) -> Node:
        """Argo 4.0.8 workflow/controller/dag.go:597."""
        node = self.nodes.add(Node(f"{boundary}.{display}", display, "Skipped"), parent)
        return self._end(node, "Omitted", "omitted: depends condition not met")

    def skip(self, parent: Node, boundary: str, display: str) -> Node:
        node = self.nodes.kept(f"{boundary}.{display}") or self.nodes.add(Node(f"{boundary}.{display}", display, "Skipped"), parent)
        return self._end(node, "Skipped", "when 'true != true' evaluated false")
