//! How the binary is linked: to a fixed address, as upstream's programs are.
//!
//! A program that can be loaded anywhere holds some megabytes of addresses that the loader fills in at every start, private to
//! each process. Every pod has a shim, which is this program, so that would be paid for once a pod.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-no-pie");
}
