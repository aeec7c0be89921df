"""Who may read what a task writes: its user and its group, whatever the umask of the launcher that started it is.

Argo starts Kubeflow's launcher with the umask 0 (4.0.8, workflow/executor/osspecific/umask_linux.go:8), so everybody could change
what a task leaves on a claim. A TrainJob's pods have 022, so another user of the group could not go on from a checkpoint.
"""

import os

VARIABLE = "DIER_UMASK"
"""Environment variable with the umask, octal. Without it a task takes IN_TASKS and a step by itself that of its shell."""
IN_TASKS = "007"
"""Folders 0770 and files 0660."""


def current() -> int:
    """The umask as it is; the system tells it only to who sets another one."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def set_umask(otherwise: str = "") -> None:
    """Take the umask of the environment, or the one given, or leave it. Raises SettingsError for one that is no umask."""
    wanted = os.environ.get(VARIABLE) or otherwise
    if not wanted:
        return
    try:
        os.umask(int(wanted, 8) & 0o777)
    except ValueError as error:
        from components.common.errors import SettingsError

        raise SettingsError(f"{VARIABLE} = {wanted!r} is no umask: give an octal number such as {IN_TASKS}") from error
