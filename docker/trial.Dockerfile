# The image of the example sweeps' trials, for Kubernetes: scikit-learn and the training script, nothing of Airflow.
# Build it from the root of the repository, push it where your cluster pulls from, and name it in the polyaxonfile:
#
#     docker build -f docker/trial.Dockerfile -t registry.example.com/team/digits-trial:1 .
#     build: {image: "registry.example.com/team/digits-trial:1"}
#
# `airflow_hptuning.tracking` need not be in it: it comes with the pod.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE}
COPY requirements/runtime.txt /tmp/constraints.txt
# The versions that the tests run with.
RUN grep -E '^(joblib|numpy|scikit-learn|scipy|threadpoolctl)==' /tmp/constraints.txt > /tmp/requirements.txt \
    && pip install --no-cache-dir -r /tmp/requirements.txt \
    && rm /tmp/requirements.txt /tmp/constraints.txt
WORKDIR /work
COPY dags/train_digits.py ./
# Pods need not run as root; outputs go to a mounted volume or below /tmp.
USER 1000:1000
