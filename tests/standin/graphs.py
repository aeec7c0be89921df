"""Graphs of tasks as Argo walks them: what waits for what, graphs inside graphs, loops, and hooks at a task's exit."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.standin.driver import Patch
from tests.standin.importer import import_artifact
from tests.standin.metadata import IMPORTER, IMPORTER_WORKSPACE, Execution
from tests.standin.nodes import DONE, Node
from tests.standin.package import EXIT, dependencies
from tests.standin.resolve import Task
from tests.standin.workflow import Workflow


@dataclass
class Graphs:
    """Walks the graphs of one workflow."""

    flow: Workflow

    def run(self) -> Node:
        """The entrypoint: the root's driver, then the root. KFP 2.17.0 backend/src/v2/compiler/argocompiler/dag.go:150."""
        flow, package = self.flow, self.flow.package

        def body(node: Node, attempt: int, deadline: float | None) -> None:
            def drive() -> Execution:
                return flow.driver.root_dag(flow.run_id, flow.values)

            driver = flow.driver_pod(node, node.name, "root-driver", "system-dag-driver", drive, on_exit=False)
            if driver.phase in DONE:
                root = self._dag(node, node.name, "root", "root", package.root["dag"]["tasks"], driver.outputs, False)
                _inherit(node, [root])
            else:
                _inherit(node, [driver, flow.omit(node, node.name, "root")])

        return flow.template(None, flow.name, flow.name, "DAG", "entrypoint", flow.stock(), body)

    def _dag(
        self, parent: Node, boundary: str, display: str, template: str, tasks: dict[str, Any], dag: Execution, on_exit: bool
    ) -> Node:
        """A graph: its tasks at once where they do not wait for each other; a failure leaves those that run alone."""

        def body(node: Node, attempt: int, deadline: float | None) -> None:
            ended: dict[str, Node] = {}
            events = {name: threading.Event() for name, task in tasks.items() if not _is_exit(task)}
            problems: list[BaseException] = []

            def one(name: str) -> None:
                try:
                    waits = dependencies(tasks, name)
                    for other in waits:
                        events[other].wait()
                    ready = all(ended[other].phase == "Succeeded" for other in waits if other in ended)
                    ended[name] = self._task(node, name, tasks, dag, ready, on_exit)
                except BaseException as error:
                    problems.append(error)
                finally:
                    events[name].set()

            threads = [threading.Thread(target=one, args=(name,), daemon=True) for name in sorted(events)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if problems:
                raise problems[0]
            _inherit(node, [ended[name] for name in sorted(ended)])

        return self.flow.template(parent, f"{boundary}.{display}", display, "DAG", template, self.flow.stock(), body)

    def _task(self, node: Node, name: str, tasks: dict[str, Any], dag: Execution, ready: bool, on_exit: bool) -> Node:
        spec = tasks[name]
        component = self.flow.package.component(spec)
        if not ready:
            if "parameterIterator" not in spec and not self._imports(component):
                self.flow.omit(node, node.name, f"{name}-driver")
            return self.flow.omit(node, node.name, name)
        if "parameterIterator" in spec:
            made = self._loop(node, name, spec, component, dag)
        elif self._imports(component):
            made = self._importer(node, name, spec, component, dag)
        else:
            made = self._plain(node, node.name, name, name, spec, component, dag, None, on_exit)
        if made.phase in ("Succeeded", "Failed", "Error"):
            self._hooks(made, name, tasks, dag)
        return made

    def _imports(self, component: dict[str, Any]) -> bool:
        return "executorLabel" in component and "importer" in self.flow.package.executor(component)

    def _plain(
        self,
        node: Node,
        boundary: str,
        display: str,
        name: str,
        spec: dict[str, Any],
        component: dict[str, Any],
        dag: Execution,
        iteration: int | None,
        on_exit: bool,
    ) -> Node:
        """A step or a graph: its driver, then itself. KFP 2.17.0 backend/src/v2/compiler/argocompiler/dag.go:248."""
        flow, inner = self.flow, "dag" in component
        task = self._told(name, spec, component, dag, iteration, inner)
        drive: Callable[[], Any] = (lambda: flow.driver.dag(task)) if inner else (lambda: flow.driver.container(task))
        template = "system-dag-driver" if inner else "system-container-driver"
        driver = flow.driver_pod(node, boundary, f"{display}-driver", template, drive, on_exit)
        if driver.phase not in DONE:
            flow.omit(node, boundary, display)
            return driver
        if inner:
            label = spec["componentRef"]["name"]
            return self._dag(node, boundary, display, label, component["dag"]["tasks"], driver.outputs, on_exit)
        return self._step(node, boundary, display, name, spec, driver.outputs, iteration, on_exit)

    def _step(
        self,
        node: Node,
        boundary: str,
        display: str,
        name: str,
        spec: dict[str, Any],
        patch: Patch,
        iteration: int | None,
        on_exit: bool,
    ) -> Node:
        """A graph of `executor`, which a cached task skips. KFP 2.17.0 backend/src/v2/compiler/argocompiler/container.go:433."""
        flow = self.flow

        def body(inner: Node, attempt: int, deadline: float | None) -> None:
            if patch.cached:
                flow.skip(inner, inner.name, "executor")
            else:
                _inherit(inner, [flow.step_pod(inner, inner.name, name, spec, patch, on_exit)])

        return flow.template(node, f"{boundary}.{display}", display, "DAG", "system-container-executor", flow.stock(), body)

    def _loop(self, node: Node, name: str, spec: dict[str, Any], component: dict[str, Any], dag: Execution) -> Node:
        """KFP 2.17.0 backend/src/v2/compiler/argocompiler/dag.go:360: a driver that counts, then a graph for each item."""
        flow = self.flow
        limit = int(spec.get("iteratorPolicy", {}).get("parallelismLimit", 0))

        def body(loop: Node, attempt: int, deadline: float | None) -> None:
            task = self._told(name, spec, component, dag, None, True)

            def drive() -> Execution:
                return flow.driver.dag(task)

            driver = flow.driver_pod(loop, loop.name, "iteration-driver", "system-dag-driver", drive, on_exit=False)
            if driver.phase not in DONE:
                _inherit(loop, [driver, flow.omit(loop, loop.name, "iteration-iterations")])
                return
            counted: Execution = driver.outputs
            group = flow.nodes.add(Node(f"{loop.name}.iteration-iterations", "iteration-iterations", "TaskGroup"), loop)
            if not counted.iteration_count:
                flow.skip(loop, loop.name, "iteration-iterations")
                return
            places = threading.Semaphore(limit or counted.iteration_count)
            ended: dict[int, Node] = {}

            def one(index: int) -> None:
                with places:
                    ended[index] = self._item(group, loop, name, spec, component, counted, index)

            threads = [threading.Thread(target=one, args=(index,), daemon=True) for index in range(counted.iteration_count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            _inherit(group, [ended[index] for index in sorted(ended)])
            if not group.ended:
                group.phase = "Succeeded"
            _inherit(loop, [group])

        label = f"{spec['componentRef']['name']}-{name}-iterator"
        return flow.template(node, f"{node.name}.{name}", name, "DAG", label, flow.stock(), body)

    def _item(
        self, group: Node, loop: Node, name: str, spec: dict[str, Any], component: dict[str, Any], counted: Execution, index: int
    ) -> Node:
        display = f"iteration-iterations({index}:{index})"

        def body(inner: Node, attempt: int, deadline: float | None) -> None:
            _inherit(inner, [self._plain(inner, inner.name, "iteration-item", name, spec, component, counted, index, False)])

        label = f"{spec['componentRef']['name']}-iteration"
        return self.flow.template(group, f"{loop.name}.{display}", display, "DAG", label, self.flow.stock(), body)

    def _importer(self, node: Node, name: str, spec: dict[str, Any], component: dict[str, Any], dag: Execution) -> Node:
        """One pod, no driver, known by its display name. KFP 2.17.0 backend/src/v2/component/importer_launcher.go:136."""
        flow, servers = self.flow, self.flow.servers
        importer = flow.package.executor(component)["importer"]

        def publish() -> None:
            execution = servers.metadata.create(
                type=IMPORTER_WORKSPACE if importer.get("downloadToWorkspace") else IMPORTER,
                run_id=flow.run_id,
                task_name=spec["taskInfo"]["name"],
                parent=dag.id,
            )
            workspace = servers.cluster.claims.get(f"{flow.name}-kfp-workspace")
            import_artifact(execution, component, importer, servers.metadata, servers.store, flow.package.name, workspace)

        return flow.importer_pod(node, node.name, name, publish)

    def _hooks(self, made: Node, name: str, tasks: dict[str, Any], dag: Execution) -> None:
        """Exit tasks of a task that has ended, however; they do not change its end, nor the run's.

        KFP 2.17.0 backend/src/v2/compiler/argocompiler/dag.go:62 and Argo 4.0.8 workflow/controller/dag.go:530. One that
        succeeded is not run again when the run is retried (KFP 2.17.0 backend/src/common/util/workflow.go:232).
        """
        for other, spec in tasks.items():
            if not _is_exit(spec) or name not in spec.get("dependentTasks", []):
                continue
            component = self.flow.package.component(spec)

            def body(
                node: Node,
                attempt: int,
                deadline: float | None,
                other: str = other,
                spec: dict[str, Any] = spec,
                component: dict[str, Any] = component,
            ) -> None:
                _inherit(node, [self._plain(node, node.name, other, other, spec, component, dag, None, True)])

            self.flow.template(
                made, f"{made.name}.onExit", f"{made.display}.onExit", "DAG", f"exit-hook-{other}", self.flow.stock(), body
            )

    def _told(
        self, name: str, spec: dict[str, Any], component: dict[str, Any], dag: Execution, iteration: int | None, is_dag: bool
    ) -> Task:
        flow = self.flow
        return Task(name, spec, component, dag, flow.run_id, flow.name, flow.display_name, flow.create_time, iteration, is_dag)


def _is_exit(task: dict[str, Any]) -> bool:
    return bool(task.get("triggerPolicy", {}).get("strategy") == EXIT)


def _inherit(node: Node, children: list[Node]) -> None:
    """A graph ends as the first of its tasks that did not end well. Argo 4.0.8 workflow/controller/dag.go:217."""
    for child in children:
        if child.bad:
            node.phase, node.message, node.finished = child.phase, "", child.finished
            return
