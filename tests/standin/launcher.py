"""The launcher: it runs inside the step's container, brings the inputs, starts the step, and publishes what it made."""

import json
from dataclasses import dataclass
from typing import Any

from tests.standin.cache import Cache
from tests.standin.driver import LOGS
from tests.standin.errors import LauncherError, StandInError
from tests.standin.metadata import Artifact, Execution, Metadata
from tests.standin.pod import Ended, Pod, Run
from tests.standin.proxy import API, KUBERNETES, METADATA, STORE, proxied
from tests.standin.resolve import WORKSPACE
from tests.standin.store import Store, folders, local_path
from tests.standin.values import Value, as_value, go_json, parsed, text


@dataclass
class Launcher:
    """One try of one task."""

    pod: Pod
    execution: Execution
    component: dict[str, Any]
    metadata: Metadata
    store: Store
    cache: Cache | None
    pipeline: str
    publish_logs: bool
    chown: bool

    def run(self, run: Run) -> tuple[Ended, list[str]]:
        """How the pod ends, and what the launcher said. KFP 2.17.0 backend/src/v2/component/launcher_v2.go:178."""
        said: list[str] = []
        try:
            self._pre_publish()
        except LauncherError as error:
            return Ended(1), [f"failed to execute component: {error}"]
        try:
            ended = self._execute(run, said)
        except StandInError as error:
            self._publish("FAILED", {}, {})
            return Ended(1), [*said, f"failed to execute component: {error}"]
        except OSError as error:
            self._publish("FAILED", {}, {})
            return Ended(1), [*said, f"failed to execute component: {error}"]
        return ended, said

    def _pre_publish(self) -> None:
        """Tell ML Metadata of the pod; with a proxy in between nothing gets through.

        KFP 2.17.0 backend/src/v2/component/launcher_v2.go:356; seen: row 13.
        """
        # gRPC takes the proxy for https, with TLS or without: google.golang.org/grpc internal/resolver/delegatingresolver
        if through := proxied(METADATA, 8080, self.pod.env, scheme="https"):
            raise LauncherError(
                "failed to pre-publish Pod info to ML Metadata: rpc error: code = Unavailable desc = connection error: "
                f'desc = "transport: Error while dialing: failed to do connect handshake with the proxy {through}"'
            )
        self.execution.pod, self.execution.state = self.pod.name, "RUNNING"

    def _execute(self, run: Run, said: list[str]) -> Ended:
        self._reach()
        self._qualify_logs()
        self._prepare_outputs()
        self.pod.command = self._compiled()
        self._download()
        self._prepare_outputs()
        ended = run(self.pod)
        if ended.deleted or ended.oom or ended.deadline or self.pod.stop.is_set():
            return ended  # it died with its step, and published nothing: no signal is handled, and none is passed on
        logs = self.pod.executor_input["outputs"]["artifacts"].get(LOGS)
        if self.publish_logs and logs:
            place = self.pod.local(local_path(logs["artifacts"][0]["uri"]))
            folders(place.parent)
            place.write_text(ended.log)
        if ended.code != 0:
            # KFP 2.17.0 backend/src/v2/component/launcher_v2.go:787: of a failed step its log is kept, and nothing else
            self._publish("FAILED", {}, self._upload({LOGS: logs} if logs else {}, {}))
            reason = f"exit status {ended.code}" if ended.code < 128 else f"signal: {ended.code - 128}"
            said.append(f"failed to execute component: {reason}")
            # KFP 2.17.0 backend/src/v2/cmd/launcher-v2/main.go:59, glog.Exit: 1, whatever the step's was
            return Ended(1, ended.log)
        output = self._executor_output()
        values = self._output_parameters(output)
        kept = self._upload(self.pod.executor_input["outputs"]["artifacts"], output.get("artifacts", {}))
        self._publish("COMPLETE", values, kept)
        if self.execution.fingerprint and self.cache is not None:
            self.cache.add(self.execution.fingerprint, self.pipeline, self.execution.id)
        return Ended(0, ended.log)

    def _reach(self) -> None:
        """The other servers it needs, asked through the step's proxy as well."""
        env = self.pod.env
        if through := proxied(KUBERNETES, 443, env, scheme="https"):  # the store's Secret: objectstore.go, getS3BucketCredential
            raise LauncherError(f'Get "https://{KUBERNETES}:443/api/v1/namespaces/": proxyconnect tcp: {through}')
        if through := proxied(STORE, 9000, env, scheme="http"):
            raise LauncherError(f"failed to open bucket: proxyconnect tcp: {through}")
        if self.execution.fingerprint and (through := proxied(API, 8887, env, scheme="https")):
            raise LauncherError(f"failed to create task: rpc error: code = Unavailable desc = proxy {through}")

    def _qualify_logs(self) -> None:
        """Each try has a log of its own. KFP 2.17.0 backend/src/v2/component/launcher_v2.go:538."""
        found = self.pod.executor_input["outputs"]["artifacts"].get(LOGS)
        if self.publish_logs and found:
            suffix = f"-{self.pod.env.get('KFP_RETRY_INDEX', '0')}"
            found["artifacts"][0]["uri"] = found["artifacts"][0]["uri"].removesuffix(suffix) + suffix

    @property
    def _key(self) -> str:
        return f"{self.pod.run_id}/{self.pod.task}"

    def _owner(self) -> tuple[int, int] | None:
        return self.pod.owner if self.chown else None

    def _prepare_outputs(self) -> None:
        """The folder above each output, not the output's own. KFP 2.17.0 backend/src/v2/component/launcher_v2.go:1280."""
        for found in self.pod.executor_input["outputs"]["artifacts"].values():
            for one in found["artifacts"]:
                folders(self.pod.local(local_path(one["uri"])).parent, self._owner())

    def _download(self) -> None:
        """Every input artifact, whole, named in the command or not. KFP 2.17.0 backend/src/v2/component/launcher_v2.go:927."""
        for found in self.pod.executor_input["inputs"].get("artifacts", {}).values():
            for one in found["artifacts"]:
                if one.get("metadata", {}).get("_kfp_workspace") is not True:
                    self.store.download(one["uri"], self.pod.local(local_path(one["uri"])), self._key, self._owner())

    def _compiled(self) -> list[str]:
        """The command's last placeholders. KFP 2.17.0 backend/src/v2/component/launcher_v2.go:1051.

        `{{$}}` first, then inputs and outputs. Whatever else stands in `{{$...}}` stays as it is.
        """
        given = self._with_defaults()
        whole = go_json(_written(given))
        places = self._placeholders(given)
        words = [word.replace("{{$}}", whole) for word in self.pod.command]
        for place, value in places.items():
            # KFP 2.17.0 backend/src/v2/component/launcher_v2.go:1063: of the first word only {{$}} is filled in
            words[1:] = [word.replace(place, value) for word in words[1:]]
        return words

    def _with_defaults(self) -> dict[str, Any]:
        """KFP 2.17.0 backend/src/v2/component/launcher_v2.go:1310."""
        given = json.loads(json.dumps(self.pod.executor_input))
        values = given["inputs"].setdefault("parameterValues", {})
        for name, definition in self.component.get("inputDefinitions", {}).get("parameters", {}).items():
            if "defaultValue" in definition:
                values.setdefault(name, as_value(definition["defaultValue"]))
        return as_value(given)  # type: ignore[no-any-return]

    def _placeholders(self, given: dict[str, Any]) -> dict[str, str]:
        """KFP 2.17.0 backend/src/v2/component/launcher_v2.go:1077. Of a list of artifacts only the first has a path."""
        places: dict[str, str] = {}
        for way in ("inputs", "outputs"):
            for name, found in given[way].get("artifacts", {}).items():
                if found["artifacts"]:
                    one = found["artifacts"][0]
                    inside = f"{WORKSPACE}/.artifacts" if one.get("metadata", {}).get("_kfp_workspace") is True else ""
                    places[f"{{{{$.{way}.artifacts['{name}'].uri}}}}"] = one["uri"]
                    places[f"{{{{$.{way}.artifacts['{name}'].path}}}}"] = inside + local_path(one["uri"])
        for name, value in given["inputs"].get("parameterValues", {}).items():
            if value is None:
                raise LauncherError("failed to get placeholders: unknown PipelineSpec Value type *structpb.Value_NullValue")
            places[f"{{{{$.inputs.parameters['{name}']}}}}"] = text(value)
        for name, found in given["outputs"].get("parameters", {}).items():
            places[f"{{{{$.outputs.parameters['{name}'].output_file}}}}"] = found["outputFile"]
        return places

    def _executor_output(self) -> dict[str, Any]:
        """What the step says of its outputs, parsed strictly. KFP 2.17.0 backend/src/v2/component/launcher_v2.go:1208."""
        from google.protobuf import json_format
        from kfp.pipeline_spec import pipeline_spec_pb2

        name = self.pod.executor_input["outputs"]["outputFile"]
        file = self.pod.local(name)
        if not file.exists():
            return {}
        try:
            raw = json.loads(file.read_text("utf-8"), parse_constant=_no_json)  # Go's JSON knows no NaN
            json_format.ParseDict(raw, pipeline_spec_pb2.ExecutorOutput())
        except (ValueError, json_format.ParseError) as error:
            # KFP 2.17.0 backend/src/v2/component/launcher_v2.go:448: counts as a failed step, whose log alone is kept
            logs = self.pod.executor_input["outputs"]["artifacts"].get(LOGS)
            self._upload({LOGS: logs} if logs else {}, {})
            raise LauncherError(f'failed to unmarshall ExecutorOutput in file "{name}": {error}') from error
        return as_value(raw)  # type: ignore[no-any-return]

    def _output_parameters(self, output: dict[str, Any]) -> dict[str, Value]:
        """KFP 2.17.0 backend/src/v2/component/launcher_v2.go:484."""
        values = dict(output.get("parameterValues", {}))
        for name, definition in self.component.get("outputDefinitions", {}).get("parameters", {}).items():
            if name not in values:
                place = self.pod.executor_input["outputs"]["parameters"][name]["outputFile"]
                try:
                    values[name] = parsed(self.pod.local(place).read_text("utf-8"), definition["parameterType"])
                except (OSError, ValueError, LookupError) as error:
                    raise LauncherError(f'failed to read output parameter name="{name}" path="{place}": {error}') from error
        return values

    def _upload(self, outputs: dict[str, Any], told: dict[str, Any]) -> dict[str, Artifact]:
        """Each output's folder or file, and its metadata. KFP 2.17.0 backend/src/v2/component/launcher_v2.go:778.

        One that was not made is no error. A value that ML Metadata cannot hold is, and then nothing of the task is kept.
        """
        kept: dict[str, Artifact] = {}
        for name, found in outputs.items():
            one = dict(found["artifacts"][0])
            metadata = dict(one.get("metadata", {}))
            if name != LOGS and told.get(name, {}).get("artifacts"):
                given = told[name]["artifacts"][0]
                one["uri"] = given.get("uri") or one["uri"]
                metadata |= given.get("metadata", {})
            try:
                self.store.upload(self.pod.local(local_path(one["uri"])), one["uri"], self._key)
            except FileNotFoundError:
                if name == LOGS:
                    continue
            kind = one["type"].get("schemaTitle", "system.Artifact")
            try:
                kept[name] = self.metadata.record(kind, one["uri"], metadata, name)
            except StandInError as error:
                raise LauncherError(f'unable to produce MLMD artifact for output "{name}": {error}') from error
        return kept

    def _publish(self, state: str, values: dict[str, Value], kept: dict[str, Artifact]) -> None:
        self.metadata.publish(self.execution, state, values, kept, self.pipeline)
        if self.execution.parent is not None:
            self.metadata.update_dag(self.metadata.executions[self.execution.parent])


def _written(given: dict[str, Any]) -> dict[str, Any]:
    """The executor input as protobuf's JSON has it: without empty maps."""
    return {
        "inputs": {key: value for key, value in given["inputs"].items() if value},
        "outputs": {key: value for key, value in given["outputs"].items() if value},
    }


def _no_json(word: str) -> float:
    raise ValueError(f"syntax error: invalid value {word}")
