"""When Argo tries a task again, and for how long: its times, as whole seconds.

`backoff.maxDuration`, which Kubeflow calls backoff_max_duration, is no longest wait: it is the window from the start of the first
try, after which nothing is tried again and a further try is ended where it stands (Argo 4.0.8, workflow/controller/operator.go:1043
and 1099, 1112; cmd/argoexec/executor/init.go:69). Left out it is an hour or nothing, as the SDK has it: less than a training takes.
"""

FOREVER_S = 10 * 365 * 86400
"""Where nothing limits a try. Argo counts in nanoseconds, 292 years of them."""
FOR_A_NODE_S = 86400
"""What a try may wait for a node, a GPU or an image before its own time begins: of each try, as the window counts it."""


def window_s(time_limit: int | None, count: int, wait: int, factor: int) -> int:
    """Seconds in which the first try and `count` further ones fit, each with its time limit, and the waits between them.

    `wait` s before the first retry, each further one `factor` times longer. Without a time limit there is no window that would be
    long enough, so it is FOREVER_S.
    """
    if time_limit is None:
        return FOREVER_S
    waits = sum(wait * int(factor**number) for number in range(count))
    return min(FOREVER_S, (time_limit + FOR_A_NODE_S) * (count + 1) + waits)
