//! The command line: every flag with its default and its words, once.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use kubelet::node::thresholds::Thresholds;

/// A complete Kubernetes in one program.
#[derive(Parser)]
#[command(name = "coracle", version, about, max_term_width = 100)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

pub fn parse() -> Command {
    Program::parse().command
}

#[derive(Subcommand)]
pub enum Command {
    /// Start a cluster on this machine: control plane and node.
    Up(UpArguments),
    /// Stop what runs on this machine, containers included, and leave nothing behind but the data.
    Down(DataArguments),
    /// Show how the cluster on this machine is.
    Status(DataArguments),
    /// Start a control plane without a node.
    Server(ServerArguments),
    /// Join this machine to a cluster as a node.
    Agent(AgentArguments),
    /// Make a token with which another machine can join.
    Token(DataArguments),
    /// Bring images in, list and remove them.
    Image(ImageArguments),
    /// Stop everything and remove all data.
    Uninstall(UninstallArguments),
}

#[derive(Args, Clone)]
pub struct DataArguments {
    /// Where everything is kept.
    #[arg(long, default_value = "/var/lib/coracle", env = "CORACLE_DATA_DIR")]
    pub data_dir: PathBuf,
}

#[derive(Args, Clone)]
pub struct UpArguments {
    #[command(flatten)]
    pub control_plane: ControlPlaneArguments,
    #[command(flatten)]
    pub node: NodeArguments,
    /// Return when the node is ready; the cluster goes on in the background.
    #[arg(long)]
    pub detach: bool,
}

#[derive(Args, Clone)]
pub struct ServerArguments {
    #[command(flatten)]
    pub control_plane: ControlPlaneArguments,
    #[command(flatten)]
    pub node: NodeArguments,
}

#[derive(Args, Clone)]
pub struct ControlPlaneArguments {
    /// The address the API is served on.
    #[arg(long, default_value = "0.0.0.0:6443")]
    pub listen: SocketAddr,
    /// Where service addresses come from; two ranges for two address families.
    #[arg(long, default_value = "10.43.0.0/16", value_delimiter = ',')]
    pub service_cidr: Vec<String>,
    /// Where pod addresses come from.
    #[arg(long, default_value = "10.42.0.0/16", value_delimiter = ',')]
    pub pod_cidr: Vec<String>,
    /// The address of the cluster's DNS service; the tenth of the service range unless given.
    #[arg(long)]
    pub cluster_dns: Option<IpAddr>,
    /// The domain of services and pods.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
}

#[derive(Args, Clone)]
pub struct NodeArguments {
    #[command(flatten)]
    pub data: DataArguments,
    /// The node's name; the machine's host name unless given.
    #[arg(long)]
    pub node_name: Option<String>,
    /// The address by which other nodes reach this one.
    #[arg(long)]
    pub node_ip: Option<IpAddr>,
    /// The control group below which pods are put.
    #[arg(long, default_value = "/")]
    pub cgroup_parent: String,
    /// Where to pull a registry's images from instead: `docker.io=http://mirror:5000`. Can be repeated.
    #[arg(long, value_name = "HOST=URL")]
    pub registry_mirror: Vec<String>,
    /// At which shortage the node says that it is under pressure, and takes no more pods.
    #[arg(long, value_name = "SIGNAL<AMOUNT,...", default_value = kubelet::node::thresholds::DEFAULT)]
    pub eviction_hard: Thresholds,
    /// Run containers with another runtime that speaks CRI: `unix:///run/containerd/containerd.sock`. The one built in unless given.
    #[arg(long, value_name = "URL")]
    pub container_runtime_endpoint: Option<String>,
    /// The token that machines join with.
    #[arg(long, env = "CORACLE_TOKEN")]
    pub token: Option<String>,
    /// Parts to leave out, for another program in their place: apiserver, scheduler and controllers where there is a control plane,
    /// proxy and kubelet where there is a node.
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    pub without: Vec<String>,
}

#[derive(Args, Clone)]
pub struct AgentArguments {
    /// The API server, such as `https://10.0.0.1:6443`.
    #[arg(long)]
    pub server: String,
    #[command(flatten)]
    pub node: NodeArguments,
}

#[derive(Args, Clone)]
pub struct ImageArguments {
    #[command(flatten)]
    pub data: DataArguments,
    #[command(subcommand)]
    pub command: ImageCommand,
}

#[derive(Subcommand, Clone)]
pub enum ImageCommand {
    /// Import images from an archive (`docker save`) or an OCI layout.
    Import {
        path: PathBuf,
        /// The name of an image that carries none.
        #[arg(long)]
        name: Option<String>,
    },
    /// List images.
    Ls,
    /// Remove an image.
    Rm { name: String },
}

#[derive(Args, Clone)]
pub struct UninstallArguments {
    #[command(flatten)]
    pub data: DataArguments,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Program::command().debug_assert();
    }
}
