//! The plugin: this program under the plugin's name, started by a runtime for one question.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Answer, CniError, Code, MESSAGE_BYTES_MAX, PLUGIN_NAME, Question, VERSIONS};

/// How long the agent may take; the kernel's part is done in some ten milliseconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Becomes the plugin when this process was started as it. To be called before any thread is started.
pub fn reexec() -> Option<ExitCode> {
    let name = std::env::args_os().next()?;
    (Path::new(&name).file_name() == Some(OsStr::new(PLUGIN_NAME))).then(run)
}

fn run() -> ExitCode {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let mut config = String::new();
    let read = io::stdin().take(MESSAGE_BYTES_MAX).read_to_string(&mut config);
    let read =
        read.map_err(|error| CniError::new(Code::Io, "cannot read the configuration").because(error.to_string()));
    let answer = read.and_then(|_| answer(&variable, &config));
    let version = serde_json::from_str::<Value>(&config).unwrap_or_default();
    let version = version["cniVersion"].as_str().filter(|version| VERSIONS.contains(version)).unwrap_or(VERSIONS[0]);
    let (printed, code) = match answer {
        Ok(Value::Null) => return ExitCode::SUCCESS,
        Ok(result) => (result, ExitCode::SUCCESS),
        Err(error) => {
            let error = serde_json::to_value(&error).unwrap_or_default();
            (with_version(error, version), ExitCode::FAILURE)
        }
    };
    // A runtime that does not listen has no use for it.
    drop(writeln!(io::stdout(), "{printed}"));
    code
}

fn with_version(mut value: Value, version: &str) -> Value {
    value["cniVersion"] = version.into();
    value
}

fn answer(variable: &dyn Fn(&str) -> String, config: &str) -> Answer {
    let command = variable("CNI_COMMAND");
    if command.is_empty() {
        let advice = "this is a CNI plugin, which a container runtime starts";
        return Err(CniError::new(Code::InvalidEnvironment, "CNI_COMMAND is not set").because(advice));
    }
    let config: Value = serde_json::from_str(config).map_err(|error| {
        CniError::new(Code::Undecodable, "the configuration is not JSON").because(error.to_string())
    })?;
    let version = config["cniVersion"].as_str().unwrap_or("0.1.0");
    if command == "VERSION" {
        let version = if VERSIONS.contains(&version) { version } else { VERSIONS[1] };
        return Ok(json!({"cniVersion": version, "supportedVersions": VERSIONS}));
    }
    if !VERSIONS.contains(&version) {
        let error = CniError::new(Code::IncompatibleVersion, format!("version {version} of CNI is not spoken"));
        return Err(error.because(format!("these are: {}", VERSIONS.join(", "))));
    }
    let Some(socket) = config["socket"].as_str().map(str::to_owned) else {
        return Err(CniError::new(Code::InvalidConfiguration, "the configuration has no socket"));
    };
    let question = Question {
        container_id: variable("CNI_CONTAINERID"),
        netns: variable("CNI_NETNS"),
        ifname: variable("CNI_IFNAME"),
        args: variable("CNI_ARGS"),
        command,
        config,
    };
    let result = ask(Path::new(&socket), &question)?;
    Ok(if result.is_null() {
        result
    } else {
        with_version(result, question.config["cniVersion"].as_str().unwrap_or_default())
    })
}

fn ask(socket: &Path, question: &Question) -> Answer {
    let mut stream = UnixStream::connect(socket).map_err(|error| {
        let code = if question.command == "STATUS" { Code::NotAvailable } else { Code::TryAgainLater };
        CniError::new(code, format!("coracle does not run (nobody answers at {})", socket.display()))
            .because(error.to_string())
    })?;
    let failed =
        |error: io::Error| CniError::new(Code::TryAgainLater, "coracle did not answer").because(error.to_string());
    let exchanged = (|| {
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(&serde_json::to_vec(question)?)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut told = Vec::new();
        stream.take(MESSAGE_BYTES_MAX).read_to_end(&mut told)?;
        Ok(serde_json::from_slice::<Answer>(&told)?)
    })();
    exchanged.map_err(failed)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(command: &str, config: &str) -> Answer {
        answer(&|name| if name == "CNI_COMMAND" { command.to_owned() } else { String::new() }, config)
    }

    fn code(answer: Answer) -> u32 {
        answer.unwrap_err().code
    }

    #[test]
    fn errors_have_the_specification_s_numbers() {
        let absent = r#"{"cniVersion": "1.1.0", "socket": "/nowhere/cni.sock"}"#;
        assert_eq!(code(asked("", "{}")), 4);
        assert_eq!(code(asked("ADD", "{")), 6);
        assert_eq!(code(asked("ADD", r#"{"cniVersion": "0.4.0"}"#)), 1);
        assert_eq!(code(asked("ADD", r#"{"cniVersion": "1.0.0"}"#)), 7);
        assert_eq!(code(asked("ADD", absent)), 11);
        assert_eq!(code(asked("DEL", absent)), 11);
        assert_eq!(code(asked("STATUS", absent)), 50);
    }

    #[test]
    fn versions_are_told_without_the_agent() {
        for (asked_in, told) in [("1.0.0", "1.0.0"), ("0.4.0", "1.1.0")] {
            let answer = asked("VERSION", &format!(r#"{{"cniVersion": "{asked_in}"}}"#)).unwrap();
            assert_eq!(answer, json!({"cniVersion": told, "supportedVersions": ["1.0.0", "1.1.0"]}));
        }
    }
}
