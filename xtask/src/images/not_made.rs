//! Images of the suite's own list (`e2e.test --list-images`) that are not made, each with its reason.
//!
//! A spec that comes to need one moves it to `suite`.

/// Names and reasons, as a person reads them.
pub fn not_made() -> impl Iterator<Item = (&'static str, &'static str)> {
    REASONS.iter().flat_map(|(reason, names)| names.iter().map(|name| (*name, *reason)))
}

const REASONS: [(&str, &[&str]); 4] = [
    ("specs expect that it cannot be pulled", &["invalid.registry.k8s.io/invalid/alpine:3.1"]),
    (
        "only accounts of upstream's own test cloud may pull it, and no conformance spec runs it",
        &["gcr.io/k8s-authenticated-test/agnhost:2.6"],
    ),
    (
        "part of a CSI driver's deployment, and no conformance spec deploys one",
        &[
            "registry.k8s.io/cloud-provider-gcp/gcp-compute-persistent-disk-csi-driver:v1.4.0",
            "registry.k8s.io/e2e-test-images/busybox:1.36.1-1",
            "registry.k8s.io/sig-storage/csi-attacher:v4.12.0",
            "registry.k8s.io/sig-storage/csi-external-health-monitor-controller:v0.18.0",
            "registry.k8s.io/sig-storage/csi-node-driver-registrar:v2.17.0",
            "registry.k8s.io/sig-storage/csi-provisioner:v6.3.0",
            "registry.k8s.io/sig-storage/csi-resizer:v2.2.0",
            "registry.k8s.io/sig-storage/csi-snapshot-metadata:v1.0.0",
            "registry.k8s.io/sig-storage/csi-snapshotter:v8.6.0",
            "registry.k8s.io/sig-storage/hello-populator:v1.0.1",
            "registry.k8s.io/sig-storage/hostpathplugin:v1.17.1",
            "registry.k8s.io/sig-storage/livenessprobe:v2.19.0",
            "registry.k8s.io/sig-storage/volume-data-source-validator:v1.0.0",
        ],
    ),
    (
        "no conformance spec runs it",
        &[
            "registry.k8s.io/build-image/distroless-iptables:v0.9.7",
            "registry.k8s.io/e2e-test-images/apparmor-loader:1.4",
            "registry.k8s.io/e2e-test-images/ipc-utils:1.4",
            "registry.k8s.io/e2e-test-images/nginx:1.28.0-2",
            "registry.k8s.io/e2e-test-images/node-perf/npb-ep:1.6.0",
            "registry.k8s.io/e2e-test-images/node-perf/npb-is:1.7.0",
            "registry.k8s.io/e2e-test-images/node-perf/pytorch-wide-deep:1.0.0",
            "registry.k8s.io/e2e-test-images/nonroot:1.5",
            "registry.k8s.io/e2e-test-images/perl:5.26",
            "registry.k8s.io/e2e-test-images/regression-issue-74839:1.5",
            "registry.k8s.io/e2e-test-images/resource-consumer:1.14",
            "registry.k8s.io/e2e-test-images/sample-device-plugin:1.7",
            "registry.k8s.io/e2e-test-images/volume/iscsi:2.7",
            "registry.k8s.io/e2e-test-images/volume/nfs:1.6.0",
            "registry.k8s.io/sig-storage/nfs-provisioner:v4.0.8",
        ],
    ),
];
