# What `cargo xtask demo` shows, run by a shell in the lab: ordinary kubectl, and nothing else.
# The first argument is the lab's name if it is kept afterwards.
set -eu
kept=${1-}

bold= dim= plain=
if [ -t 1 ]; then bold=$(printf '\033[1m') dim=$(printf '\033[2m') plain=$(printf '\033[0m'); fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
run() { printf '%s$ %s%s\n' "$dim" "$*" "$plain"; "$@"; }
ask() { run kubectl exec client -- wget -T 2 -qO- http://payment; }
# asks until three replicas have answered, then says how often each did
ask_all() {
    printf '%s$ kubectl exec client -- wget -T 2 -qO- http://payment    (again and again)%s\n' "$dim" "$plain"
    kubectl exec client -- sh -c '
        n=0; while [ $n -lt 200 ] && [ "$(sort -u /tmp/answers 2>/dev/null | wc -l)" -lt 3 -o $n -lt 12 ]; do
            wget -T 2 -qO- http://payment >> /tmp/answers || exit 1; n=$((n + 1))
        done; sort /tmp/answers | uniq -c; rm /tmp/answers'
}
# the oldest (head) or the youngest (tail) pod of the application
pod() { kubectl get pods -l app=payment --sort-by=.metadata.creationTimestamp -o name | "$1" -n 1; }
finish() {
    status=$?
    [ $status = 0 ] && return
    say "The demo stopped here, which it should not (status $status). What the cluster says:"
    kubectl get pods -o wide || true
    kubectl get events --sort-by=.lastTimestamp | tail -n 15 || true
}
trap finish EXIT

say "1. A Kubernetes, all of it one program:"
run kubectl version
run kubectl get nodes -o wide

say "2. An image made of Debian packages, in a registry on this lab's own network; the node pulls from there."
run curl -s http://registry.lab:5000/v2/library/payment-service/tags/list

say "3. An application of three replicas behind a Service:"
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

say "4. It answers by its name, from every replica:"
ask_all

say "5. A pod is deleted; another takes its place:"
run kubectl delete "$(pod head)"
run kubectl rollout status deployment/payment --timeout=60s
run kubectl get pods -l app=payment

say "6. A process is told to end; its container starts again, in the same pod:"
victim=$(pod tail)
run kubectl exec "$victim" -- kill 1
run kubectl wait --for=jsonpath='{.status.containerStatuses[0].restartCount}'=1 "$victim" --timeout=60s
run kubectl wait --for=condition=Ready "$victim" --timeout=60s
run kubectl get pods -l app=payment
ask_all

say "7. A bad version is rolled out. It never gets ready, so the old pods stay and go on answering (this takes 10 s):"
run kubectl set image deployment/payment payment=payment-service:1.1
run kubectl rollout status deployment/payment --timeout=10s || true
run kubectl get pods -l app=payment
ask

say "8. Why? Its events and its log tell:"
bad=$(pod tail)
run kubectl events --for "$bad" --types=Warning
run kubectl logs "$bad"

say "9. It is undone:"
run kubectl rollout undo deployment/payment
run kubectl rollout status deployment/payment --timeout=120s
run kubectl rollout history deployment/payment
run kubectl get pods -l app=payment
ask_all

say "That was a whole Kubernetes. What to try next:"
if [ -n "$kept" ]; then
    cat <<TEXT
  The cluster is left running. Each line below works as it stands:
  cargo xtask lab --enter $kept                   a shell in it, with kubectl set up
  cargo xtask lab --enter $kept -- kubectl get pods --all-namespaces -o wide
  cargo xtask lab --enter $kept -- kubectl set env deployment/payment DB_DSN=db
  cargo xtask lab --enter $kept -- kubectl set image deployment/payment payment=payment-service:1.1
                                                  now the new version gets ready
  cargo xtask lab --enter $kept -- kubectl rollout status deployment/payment
  cargo xtask lab --enter $kept -- lab-node log 1   what Coracle itself said
  cargo xtask lab --end $kept                     ends it and leaves nothing
TEXT
else
    cat <<'TEXT'
  cargo xtask demo --keep                the same, left running to look around in
  cargo xtask lab                        a shell in a cluster of your own; `exit` ends it
  cargo xtask lab --nodes 3              the same with three nodes
  cargo xtask stories s04                the rollout above, as a test
  cargo xtask --help                     the other chores
TEXT
fi
