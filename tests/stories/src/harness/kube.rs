//! Asking `kubectl`, as a user does, in the namespace of one story.

use std::ffi::OsString;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::watch::{Watch, seconds};

/// Names another kubectl than the one on the PATH: old ones must tell the same stories.
const KUBECTL_VARIABLE: &str = "STORIES_KUBECTL";
/// How long a question may take before it counts as hung.
const REQUEST_TIMEOUT: &str = "--request-timeout=30s";

/// How long any command may take, `exec` and `wait` included, before it counts as hung.
const COMMAND_S_MAX: u64 = 150;

fn kubectl() -> OsString {
    std::env::var_os(KUBECTL_VARIABLE).unwrap_or_else(|| "kubectl".into())
}

/// `kubectl` in one namespace.
pub struct Kube {
    namespace: String,
}

impl Kube {
    pub fn in_namespace(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned() }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// `kubectl` with the story's namespace; `words` are split at spaces.
    pub fn command(&self, words: &str) -> Command {
        self.command_of(&words.split_whitespace().collect::<Vec<_>>())
    }

    /// The same for arguments that contain spaces.
    pub fn command_of(&self, words: &[&str]) -> Command {
        let mut command = Command::new(kubectl());
        command.args(["--namespace", &self.namespace]).args(words).stdin(Stdio::null());
        command
    }

    /// What `kubectl` printed; an error with its words when it failed.
    pub fn ok(&self, words: &str) -> Result<String> {
        self.ok_of(&words.split_whitespace().collect::<Vec<_>>())
    }

    pub fn ok_of(&self, words: &[&str]) -> Result<String> {
        let done = self.run(words)?;
        if !done.status.success() {
            bail!("kubectl {} failed: {}{}", words.join(" "), text(&done.stderr), text(&done.stdout));
        }
        Ok(text(&done.stdout))
    }

    /// What `kubectl` complained about; an error when it did not fail.
    pub fn refused(&self, words: &str) -> Result<String> {
        let done = self.run(&words.split_whitespace().collect::<Vec<_>>())?;
        if done.status.success() {
            bail!("kubectl {words} should have been refused, but said: {}", text(&done.stdout));
        }
        Ok(text(&done.stderr))
    }

    pub fn run(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new("timeout");
        command.arg("--kill-after=5").arg(seconds(COMMAND_S_MAX).to_string()).arg(kubectl());
        command.args(["--namespace", &self.namespace]).args(words).stdin(Stdio::null());
        command.output().context("starting kubectl: is this a lab?")
    }

    /// The object as JSON.
    pub fn get(&self, what: &str) -> Result<Value> {
        let printed = self.ok(&format!("get {what} -o json {REQUEST_TIMEOUT}"))?;
        serde_json::from_str(&printed).with_context(|| format!("kubectl get {what} printed no JSON"))
    }

    /// One value of an object, as `-o jsonpath` prints it.
    pub fn value(&self, what: &str, path: &str) -> Result<String> {
        let path = format!("jsonpath={{{path}}}");
        let mut words: Vec<&str> = vec!["get"];
        words.extend(what.split_whitespace());
        words.extend(["-o", &path]);
        self.ok_of(&words)
    }

    /// `kubectl apply -f -`
    pub fn apply(&self, manifest: &str) -> Result<String> {
        let done = self.fed("apply -f -", manifest)?;
        if !done.status.success() {
            bail!("kubectl apply failed: {}\n{manifest}", text(&done.stderr));
        }
        Ok(text(&done.stdout))
    }

    /// Any command that reads a manifest from its input.
    pub fn fed(&self, words: &str, input: &str) -> Result<Output> {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl has no input")?;
        stdin.write_all(input.as_bytes()).context("feeding kubectl")?;
        drop(stdin);
        child.wait_with_output().context("waiting for kubectl")
    }

    /// A shell command in a container: `target` is a pod, or a pod and `-c` and a container.
    pub fn sh(&self, target: &str, script: &str) -> Result<String> {
        let mut words: Vec<&str> = vec!["exec"];
        words.extend(target.split_whitespace());
        words.extend(["--", "sh", "-c", script]);
        self.ok_of(&words)
    }

    /// `kubectl wait`; `for_what` as after `--for=`.
    pub fn wait(&self, what: &str, for_what: &str, within_s: u64) -> Result<()> {
        let (condition, timeout) = (format!("--for={for_what}"), format!("--timeout={}s", seconds(within_s)));
        let mut words: Vec<&str> = vec!["wait"];
        words.extend(what.split_whitespace());
        words.extend([condition.as_str(), timeout.as_str()]);
        self.ok_of(&words).map(drop)
    }

    /// Waits until every pod of `what` (a name or a selector) is Ready.
    pub fn wait_ready(&self, what: &str, within_s: u64) -> Result<()> {
        self.wait(&format!("pod {what}"), "condition=Ready", within_s)
    }

    /// Waits until the object satisfies `holds`, following its watch; returns it as it was then.
    pub fn until(&self, what: &str, within_s: u64, holds: impl FnMut(&Value) -> bool) -> Result<Value> {
        Watch::start(self.command(&format!("get {} --watch -o json", as_list(what))))?
            .until(within_s, holds)
            .with_context(|| format!("waiting for {what}"))
    }

    /// Waits for an event about `name` with `reason` whose message contains `words`; returns the message.
    pub fn event(&self, name: &str, reason: &str, words: &str, within_s: u64) -> Result<String> {
        let what = format!("events --field-selector involvedObject.name={name},reason={reason}");
        let event = self
            .until(&what, within_s, |event| event["message"].as_str().is_some_and(|message| message.contains(words)));
        let event = event.with_context(|| format!("no event {reason} about {name} says {words:?}"))?;
        Ok(event["message"].as_str().unwrap_or_default().to_owned())
    }

    pub fn make_namespace(&self) -> Result<()> {
        self.ok(&format!("create namespace {}", self.namespace))?;
        // pods are refused until their service account is there
        self.until("serviceaccounts", 30, |account| account["metadata"]["name"] == "default").map(drop)
    }

    /// Lets the namespace go, without waiting for it: nobody looks at it again.
    pub fn forget_namespace(&self) {
        // if it cannot be deleted, the lab's end deletes it
        let _ = self.run(&["delete", "namespace", &self.namespace, "--wait=false", "--ignore-not-found"]);
    }

    /// What a person looks at first when something is wrong here.
    pub fn first_look(&self) -> String {
        let questions = [
            "get pods,deployments,replicasets,services,endpointslices -o wide",
            "get events --sort-by=.lastTimestamp",
            "describe pods",
        ];
        let mut look = String::new();
        for words in questions {
            let answer = self.run(&words.split_whitespace().collect::<Vec<_>>());
            let said = answer
                .map(|done| text(&done.stdout) + &text(&done.stderr))
                .unwrap_or_else(|error| format!("{error:#}"));
            look.push_str(&format!("$ kubectl {words}\n{said}\n"));
        }
        look
    }
}

/// Acts on a node of the lab: `lab_node("exec 1 -- uname")`.
pub fn lab_node(words: &str) -> Result<String> {
    lab_node_of(&words.split_whitespace().collect::<Vec<_>>())
}

/// Runs a shell script on a node of the lab and returns what it printed.
pub fn on_node(number: usize, script: &str) -> Result<String> {
    lab_node_of(&["exec", &number.to_string(), "--", "sh", "-c", script])
}

fn lab_node_of(words: &[&str]) -> Result<String> {
    let mut command = Command::new("timeout");
    command.arg("--kill-after=5").arg(seconds(COMMAND_S_MAX).to_string()).arg("lab-node").args(words);
    let done = command.stdin(Stdio::null()).output().context("starting lab-node: is this a lab?")?;
    if !done.status.success() {
        bail!("lab-node {} failed: {}{}", words.join(" "), text(&done.stderr), text(&done.stdout));
    }
    Ok(text(&done.stdout))
}

/// One named object as a list of one. Of a named object `kubectl get --watch` prints what it got, and then keeps the first event
/// of its watch to itself, which is news if the object changed in between; of a list it prints everything.
fn as_list(what: &str) -> String {
    let (kind, rest) = what.split_once([' ', '/']).unwrap_or((what, ""));
    match rest.split_once(' ').unwrap_or((rest, "")) {
        (name, _) if name.is_empty() || name.starts_with('-') => what.to_owned(),
        (name, options) => format!("{kind} --field-selector metadata.name={name} {options}").trim_end().to_owned(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_object_is_watched_as_a_list_of_one() {
        for (what, list) in [
            ("pod hog", "pod --field-selector metadata.name=hog"),
            ("pod/hog -n other", "pod --field-selector metadata.name=hog -n other"),
            ("serviceaccounts", "serviceaccounts"),
            ("slices -l a/b=web", "slices -l a/b=web"),
            ("events --field-selector involvedObject.name=p", "events --field-selector involvedObject.name=p"),
        ] {
            assert_eq!(as_list(what), list);
        }
    }
}
