//! Commands that cannot be carried out: each says in a line or two what to do instead, leaves nothing behind, and never
//! with a backtrace. Told on a machine of its own, which has no cluster yet.

use anyhow::{Context, Result, ensure};

use crate::harness::{Kube, lab_node, on_node};

const MACHINE: usize = 43;

/// A shell command, and what its refusal has to say.
const WITHOUT_A_CLUSTER: &[(&str, &str)] = &[
    ("coracle status", "start it with `coracle up`"),
    ("coracle token", "run this on the server, with its --data-dir"),
    ("coracle image ls", "or give its --data-dir"),
    ("coracle uninstall < /dev/null", "or give --yes"),
    ("coracle up --no-such-flag", "--help"),
    ("coracle up --listen nonsense", "invalid value 'nonsense' for '--listen"),
    ("coracle up --service-cidr nonsense", "such as 10.43.0.0/16"),
    ("coracle up --service-cidr 10.43.0.0/30", "give a larger range"),
    ("coracle up --pod-cidr 10.43.7.0/24", "overlap: give ranges that do not"),
    ("coracle up --cluster-domain 'not a domain'", "--cluster-domain"),
    ("coracle up --node-name Not_A_Name", "give another with --node-name"),
    ("coracle up --node-ip 203.0.113.77", "give one that `ip address` shows"),
    ("coracle up --node-ip 0.0.0.0", "give one that `ip address` shows"),
    ("coracle up --cgroup-parent pods", "has to start with a slash"),
    ("coracle up --registry-mirror docker.io", "write HOST=URL"),
    ("coracle up --registry-mirror docker.io=ftp://x", "http:// or https://"),
    ("coracle up --token short", "has to look like abcdef.0123456789abcdef"),
    ("coracle up --detach --token short", "has to look like abcdef.0123456789abcdef"),
    ("coracle up --data-dir /proc/none", "give another --data-dir"),
    ("coracle up --data-dir /etc/hostname", "give another --data-dir"),
    ("setpriv --reuid 65534 --clear-groups coracle up", "sudo coracle up"),
    ("setpriv --reuid 65534 --clear-groups coracle agent --server https://192.0.2.11:6443", "sudo coracle agent"),
    ("coracle server --without everything", "choose from apiserver, scheduler, controllers"),
    ("coracle agent", "--server <SERVER>"),
    ("coracle agent --server http://192.0.2.11:6443", "write it as https://HOST:6443"),
    ("coracle agent --server https://192.0.2.11:6443 --token bad", "`coracle token` on the server makes one"),
    ("coracle agent --server https://192.0.2.11:6443", "give the --token that `coracle token` makes on the server"),
    // these go on trying, because a server may be starting just now
    (
        "timeout 2 coracle agent --server https://192.0.2.11:6443 --token abcdef.0123456789abcdef",
        "`coracle token` on the server makes a new one",
    ),
    (
        "timeout 2 coracle agent --server https://192.0.2.11:1 --token abcdef.0123456789abcdef",
        "failed, will retry for up to",
    ),
    ("coracle image import /run/none", "cannot import /run/none"),
    ("head -c 5000 /dev/urandom > /run/garbage; coracle image import /run/garbage", "as `docker save` writes it"),
    ("coracle image rm no-such-image", "`coracle image ls` lists them"),
];

/// The same with a cluster that runs.
const WITH_A_CLUSTER: &[(&str, &str)] = &[
    ("coracle up", "stop it with `coracle down` first"),
    ("coracle up --detach", "stop it with `coracle down` first"),
    ("coracle server", "stop it with `coracle down` first"),
    ("coracle up --data-dir /run/other --listen 127.0.0.1:6443", "give another with --listen"),
    ("coracle up --detach --data-dir /run/other --listen 127.0.0.1:6443", "give another with --listen"),
    ("setpriv --reuid 65534 --clear-groups coracle down", "run as root"),
    ("setpriv --reuid 65534 --clear-groups coracle token", "run this as root"),
];

const START_A_SERVER: &str = r#"
coracle server --listen 127.0.0.1:6443 > /run/server.log 2>&1 &
export KUBECONFIG=/var/lib/coracle/admin.kubeconfig
tail --pid=$! -n +1 -f /run/server.log | grep -q -m 1 'the API is served' && kubectl get --raw /readyz > /dev/null && exit
cat /run/server.log; exit 1
"#;

pub fn story(_kube: &Kube) -> Result<()> {
    lab_node(&format!("boot {MACHINE}"))?;
    let told = on_the_machine();
    lab_node(&format!("lose {MACHINE}"))?;
    told
}

fn on_the_machine() -> Result<()> {
    ensure!(on_node(MACHINE, "coracle down")?.contains("nothing of Coracle"), "`down` of nothing says so");
    each_is_refused(WITHOUT_A_CLUSTER)?;
    on_node(MACHINE, START_A_SERVER).context("starting a server")?;
    each_is_refused(WITH_A_CLUSTER)
}

fn each_is_refused(cases: &[(&str, &str)]) -> Result<()> {
    let mut wrong = Vec::new();
    for (command, advice) in cases {
        let said = on_node(MACHINE, &format!("({command}) 2>&1; echo status $?")).context("asking")?;
        let refused = !said.ends_with("status 0\n") && said.contains(advice);
        if !refused || said.contains("panicked") || said.contains("backtrace") {
            wrong.push(format!("$ {command}\n{said}(should say: {advice})"));
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {} refusals are not as they should be:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    Ok(())
}
