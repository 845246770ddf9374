#!/bin/sh
# For docker-compose.yaml: gives Airflow a namespace, and a kubeconfig with no more rights than rbac.yaml's.
set -eu

kubectl() {
  # The administrator's kubeconfig names the address as k3s itself sees it.
  command kubectl --server https://k3s:6443 "$@"
}

kubectl create namespace "$NAMESPACE" --dry-run=client --output yaml | kubectl apply -f -
kubectl --namespace "$NAMESPACE" apply -f /rbac.yaml
token=$(kubectl --namespace "$NAMESPACE" create token hptuning --duration 8760h)
authority=$(command kubectl config view --raw --output 'jsonpath={.clusters[0].cluster.certificate-authority-data}')
cat > /cluster/kubeconfig.new <<KUBECONFIG
apiVersion: v1
kind: Config
current-context: tuning
clusters: [{name: k3s, cluster: {server: "https://k3s:6443", certificate-authority-data: "$authority"}}]
contexts: [{name: tuning, context: {cluster: k3s, user: hptuning, namespace: "$NAMESPACE"}}]
users: [{name: hptuning, user: {token: "$token"}}]
KUBECONFIG
# Airflow's containers run as another user.
chmod 644 /cluster/kubeconfig.new
mv /cluster/kubeconfig.new /cluster/kubeconfig
