"""Argo's retries: which end of a pod is tried again, after how long, and until when."""

from dataclasses import dataclass
from typing import Any

STOCK_LIMIT = 2


@dataclass(frozen=True)
class Strategy:
    """A template's retryStrategy. None as `duration`: no backoff."""

    limit: int
    policy: str = "OnFailure"
    """Argo 4.0.8 pkg/apis/workflow/v1alpha1/workflow_types.go:2295: OnFailure where nothing is said."""
    duration: float | None = None
    factor: str = "1"
    window: float | None = None
    """Backoff's maxDuration."""


@dataclass(frozen=True)
class Decision:
    again: bool
    wait: float = 0.0
    message: str = ""
    deadline: float | None = None
    """When the next try is ended, whatever it does."""
    phase: str = ""
    """What the task becomes where not the last try's phase."""


def strategy(policy: dict[str, Any] | None, *, stock: bool) -> Strategy | None:
    """Of a task's `retryPolicy`, and of the stock manifests' default for every template.

    KFP 2.17.0 backend/src/v2/compiler/argocompiler/container.go:667 sets limit and backoff and no policy, so the policy is that of
    manifests/kustomize/third-party/argo/base/workflow-controller-configmap-patch.yaml, `OnError` with limit 2; a limit of its own
    wins (Argo 4.0.8 workflow/controller/operator.go:4481).
    """
    if policy is None:
        return Strategy(STOCK_LIMIT, "OnError") if stock else None
    seconds = {
        word: float(policy[word].removesuffix("s")) if word in policy else 0.0 for word in ("backoffDuration", "backoffMaxDuration")
    }
    factor = float(policy.get("backoffFactor", 0))
    return Strategy(
        limit=int(policy.get("maxRetryCount", 0)),
        policy="OnError" if stock else "OnFailure",
        duration=seconds["backoffDuration"],
        factor=str(int(factor)) if factor == int(factor) else str(factor),
        window=seconds["backoffMaxDuration"],
    )


def decide(rule: Strategy, tries: int, phase: str, first_start: float, last_end: float, now: float) -> Decision:
    """What comes after the try number `tries` (from 1) that ended as `phase`, Failed or Error.

    Argo 4.0.8 workflow/controller/operator.go:995, in its order: the window and the wait come before the question whether such an
    end is tried again at all, so a failure that is not still waits.
    """
    wait, deadline = 0.0, None
    if rule.duration is not None:
        if rule.window is not None:  # operator.go:1045: the window is counted from the first try's start
            deadline = first_start + rule.window
            if now > deadline or rule.window == 0:
                return Decision(False, message="Max duration limit exceeded")
        try:
            factor = int(rule.factor)  # operator.go:1072: a whole number, or the task is in error
        except ValueError:
            return Decision(False, message=f'strconv.Atoi: parsing "{rule.factor}": invalid syntax', phase="Error")
        wait = rule.duration * (factor ** (tries - 1) if factor > 0 else 1)
        if deadline is not None and last_end + wait > deadline:  # operator.go:1099
            return Decision(False, message="Backoff would exceed max duration limit")
        wait = max(0.0, last_end + wait - now) if tries <= rule.limit else 0.0  # operator.go:1105
    retried = {"OnError": ("Error",), "OnFailure": ("Failed",), "Always": ("Error", "Failed")}[rule.policy]
    if phase not in retried:  # operator.go:1139
        return Decision(False, wait)
    if tries > rule.limit:  # operator.go:1153
        return Decision(False, wait, "No more retries left")
    return Decision(True, wait, deadline=deadline)
