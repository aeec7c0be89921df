"""A stand-in for Kubeflow Pipelines 2.17.0 as it runs a compiled pipeline: driver, launcher, retries, metadata, cache, store.

Each rule names the line that it follows: `KFP 2.17.0 PATH:LINE` is in kubeflow/pipelines, `Argo 4.0.8 PATH:LINE` in
argoproj/argo-workflows.
What a rule does not cover is refused, not guessed. Pods are given: scripted, in a process of this machine, or in a container.
"""
