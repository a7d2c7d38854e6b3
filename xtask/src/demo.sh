# What `cargo xtask demo` shows, run by a shell in the lab: ordinary kubectl, and nothing else.
set -eu

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }
ask() { kubectl exec client -- wget -T 2 -qO- http://payment; }

say "A Kubernetes, all of it one program:"
run kubectl version
run kubectl get nodes -o wide

say "An application of three replicas behind a Service. Its image was made from Debian packages and is pulled from a registry on this lab's own network."
cat > "$CORACLE_LAB/demo.yaml" <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: {name: payment}
spec:
  replicas: 3
  selector: {matchLabels: {app: payment}}
  template:
    metadata: {labels: {app: payment}}
    spec:
      containers:
      - name: payment
        image: payment-service:1.0
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: payment}
spec:
  selector: {app: payment}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: client, image: "busybox:1.36", command: [sleep, "86400"]}]
YAML
run kubectl apply -f "$CORACLE_LAB/demo.yaml"
run kubectl rollout status deployment/payment --timeout=120s
run kubectl wait --for=condition=Ready pod/client --timeout=60s
run kubectl get pods -o wide

say "It answers, by name, from every replica:"
for i in 1 2 3 4 5 6; do ask; done

say "A pod is deleted; another takes its place:"
victim=$(kubectl get pods -l app=payment -o jsonpath='{.items[0].metadata.name}')
run kubectl delete pod "$victim"
run kubectl wait --for=jsonpath='{.status.availableReplicas}'=3 deployment/payment --timeout=60s
run kubectl get pods -l app=payment

say "A process is told to end; its container starts again in the same pod:"
victim=$(kubectl get pods -l app=payment -o jsonpath='{.items[0].metadata.name}')
run kubectl exec "$victim" -- kill 1
run kubectl wait --for=jsonpath='{.status.containerStatuses[0].restartCount}'=1 "pod/$victim" --timeout=60s
run kubectl wait --for=condition=Ready "pod/$victim" --timeout=60s
run kubectl get pods -l app=payment

say "A bad version is rolled out. The old pods go on serving, and the rollout does not end:"
run kubectl set image deployment/payment payment=payment-service:1.1
run kubectl rollout status deployment/payment --timeout=10s || true
run kubectl get pods -l app=payment
ask
bad=$(kubectl get pods -l app=payment --sort-by=.metadata.creationTimestamp -o name | tail -1)
say "Why? Its events and its log tell:"
kubectl describe "$bad" | grep -i 'probe failed' || true
run kubectl logs "$bad"

say "It is undone:"
run kubectl rollout undo deployment/payment
run kubectl rollout status deployment/payment --timeout=120s
run kubectl rollout history deployment/payment
ask

say "What to try next:"
cat <<'TEXT'
  cargo xtask lab                        a shell in a cluster of your own
  cargo xtask lab --nodes 3              the same with three nodes
  cargo xtask stories s04                the rollout above, as a test
  kubectl set env deployment/payment DB_DSN=db    and then roll out 1.1 again: it gets ready
TEXT
