//! The one binary: a whole Kubernetes, or the part of it that the command line names.
//!
//! Nothing is decided here. `arguments` says what can be asked for, one module carries out each command, and `control_plane` and
//! `node` are the two places where the crates below are wired together.

mod adapters;
mod agent;
mod api_access;
mod arguments;
mod cluster_info;
mod control_plane;
mod foreign_runtime;
mod identity;
mod images;
mod instance;
mod node;
mod parts;
mod run;
mod settings;
mod status;
mod teardown;
mod token;

use std::process::ExitCode;

use arguments::{Command, parse};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Runtimes start this program by another name.
    if let Some(done) = net::cni::plugin::reexec() {
        return done;
    }
    // A shim and a resolver are this same program: it must become one before a thread is started.
    runtime::reexec();
    dns::reexec();
    let command = parse();
    match command {
        Command::Up(_) | Command::Server(_) | Command::Agent(_) => base::logging::init(),
        _ => base::logging::init_brief(),
    }
    // Only the first provider counts; a second call has nothing to add.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let outcome = match command {
        Command::Up(arguments) => run::up(&arguments),
        Command::Server(arguments) => run::server(&arguments),
        Command::Agent(arguments) => run::agent(&arguments),
        Command::Down(arguments) => teardown::down(&arguments),
        Command::Uninstall(arguments) => teardown::uninstall(&arguments),
        Command::Status(arguments) => status::status(&arguments),
        Command::Token(arguments) => token::token(&arguments),
        Command::Image(arguments) => images::image(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coracle: {error:#}");
            ExitCode::FAILURE
        }
    }
}
