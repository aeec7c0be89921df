"""The parameters of the Kubeflow pipeline: each section of settings as JSON, and by themselves the dozen that people change.

A section's JSON counts before a parameter of its own (`train` with `{"steps": 100}` before `train_steps`), so a key in it is always
meant; by default it holds none of those keys. Both reach a task as they were given, in Kubeflow's executor input, and `dier task`
puts them together: a task sees the parameters of its own sections alone, and so does the cache. No command line holds
them: there Kubeflow's driver fails a task that leaves out a parameter with a default (2.17.0, backend/src/v2/driver/util.go:174).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from components.common.settings import SECTIONS, Settings
from pipeline.params_help import kind

OWN = (
    "data.source",
    "data.name",
    "data.path",
    "model.size",
    "model.embed_dim",
    "train.steps",
    "train.batch_size",
    "train.lr",
    "train.seed",
    "embed.timesteps",
    "register.min_accuracy",
    "register.policy",
)
"""Settings with a parameter of their own, `SECTION_KEY`. None of them may be null, which no Kubeflow parameter can carry."""
SUFFIX = "_settings"
"""A section's parameter is called SECTION_settings in a task, where `model` alone would clash with the artifact of that name."""


def name(setting: str) -> str:
    """The parameter of a setting, such as train_steps."""
    return setting.replace(".", "_")


def own(sections: Sequence[str]) -> list[str]:
    """The parameters of single settings that these sections have."""
    return [name(setting) for setting in OWN if _section(setting) in sections]


def of_task(sections: Sequence[str]) -> dict[str, str]:
    """Parameters of a task that is handed these sections, and the pipeline's parameter that each is given."""
    return {section + SUFFIX: section for section in sections} | {one: one for one in own(sections)}


def types(names: Sequence[str]) -> dict[str, type]:
    """The Python type that kfp makes a parameter's type from: text, a number, a list, JSON."""
    known = defaults(Settings())
    return {one: type(known[one.removesuffix(SUFFIX)]) for one in names}


def defaults(settings: Settings) -> dict[str, Any]:
    """Every parameter of the pipeline with its default: those of single settings first, as a person reads them first."""
    sections = {section: settings.section(section).model_dump(mode="json", exclude_none=True) for section in SECTIONS}
    single = {name(setting): sections[_section(setting)].pop(_key(setting)) for setting in OWN}
    return single | sections


def descriptions() -> dict[str, str]:
    """What each parameter means and may be, from the settings' own schema."""
    schemas = {section: type(Settings().section(section)).model_json_schema() for section in SECTIONS}
    found = {}
    for setting in OWN:
        section, key = _section(setting), _key(setting)
        field = schemas[section]["properties"][key]
        found[name(setting)] = (
            f"{field['description']} [{kind(field)}]. The JSON of {section} counts before this where it has {key}."
        )
    for section, schema in schemas.items():
        says = schema["description"].partition(".")[0]
        found[section] = f"{says}: JSON. One key is enough; what is left out has its default (dier params lists every setting)."
    return found


def of_executor_input(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sections that the parameters of a task stand for. What was left out has its default, which is not told."""
    return merged({parameter.removesuffix(SUFFIX): value for parameter, value in given.items()})


def merged(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sections that parameters of the pipeline stand for: their JSON, and where it is silent the single settings."""
    found: dict[str, dict[str, Any]] = {section: dict(values[section]) for section in SECTIONS if values.get(section) is not None}
    for setting in OWN:
        if values.get(name(setting)) is not None:
            found.setdefault(_section(setting), {}).setdefault(_key(setting), values[name(setting)])
    return found


def changed(settings: Settings, keys: Sequence[str]) -> dict[str, Any]:
    """The parameters to give a run so that its `keys` (SECTION.KEY) are those of `settings`.

    A section is given complete, since Kubeflow replaces a parameter and never merges it.
    """
    touched = {name(key) if key in OWN else _section(key) for key in keys}
    return {one: value for one, value in defaults(settings).items() if one in touched}


def _section(setting: str) -> str:
    return setting.partition(".")[0]


def _key(setting: str) -> str:
    return setting.partition(".")[2]
