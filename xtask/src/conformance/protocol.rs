//! Being what a `ginkgo` process reports to: the server's side of its parallel protocol, over HTTP.
//!
//! A process of the suite that is started as one of several asks its server for the next piece of work by number and
//! tells it about every spec as soon as it has run. So whoever answers decides what runs where and when: one process
//! runs many specs in the order that we choose, and its start, which takes longer than most specs, is paid once.
//!
//! ```text
//! GET  /up, /abort                              is the server there; shall everything stop (never: we end processes)
//! GET  /report-before-suite-state               what process 1 made of the suite's preparations; ours is always done
//! GET  /before-suite-state
//! GET  /counter                                 the next group of specs, by its place in the suite's order
//! GET  /have-nonprimary-procs-finished          process 1 may begin with the specs that must run alone
//! GET  /aggregated-nonprimary-procs-report      what the others ran, for reports that we do not use
//! POST /did-run                                 a spec and what became of it
//! ```
//!
//! The suite's order depends on its seed alone (`SEED`), not on what is in focus. This file knows nothing about
//! scheduling: that is the `Desk`'s.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Makes every process of the suite number its specs alike.
pub const SEED: u32 = 1;
/// In the environment of a process: speak HTTP instead of Go's own encoding.
pub const PROTOCOL: (&str, &str) = ("GINKGO_PARALLEL_PROTOCOL", "HTTP");
/// A place that no suite has: whoever is sent there has nothing left to do.
const NOWHERE: usize = 1 << 40;
/// A report carries everything that its spec printed.
const BODY_BYTES_MAX: u64 = 256 << 20;
const PREPARED: &str = r#"{"Data":null,"State":"passed"}"#;

/// Who gives out work and takes in results. Called by many threads.
pub trait Desk: Send + Sync {
    /// The place of the next group of specs for this process; none sends it home.
    fn next(&self, process: usize) -> Option<usize>;
    /// Process 1 goes over to the specs that must run alone, which it does in the suite's order.
    fn alone(&self, process: usize);
    fn did_run(&self, process: usize, report: Report);
}

/// What became of one node of the suite: a spec, or something that runs before or after them all.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Report {
    container_hierarchy_texts: Option<Vec<String>>,
    pub leaf_node_type: String,
    leaf_node_text: String,
    /// `passed`, `failed`, `skipped`, `interrupted`, ...
    pub state: String,
    #[serde(rename = "RunTime")]
    pub run_time_ns: u64,
    pub failure: Option<Failure>,
    captured_ginkgo_writer_output: String,
    captured_std_out_err: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Failure {
    pub message: String,
    pub forwarded_panic: String,
    pub location: Location,
    pub progress_report: Progress,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Location {
    pub file_name: String,
    pub line_number: u32,
}

/// Where a spec was when it was interrupted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Progress {
    pub current_step_text: String,
}

impl Report {
    pub fn is_spec(&self) -> bool {
        self.leaf_node_type == "It"
    }

    /// The name of a spec, as reports of the suite write it.
    pub fn name(&self) -> String {
        let containers = self.container_hierarchy_texts.iter().flatten();
        let texts = containers.chain([&self.leaf_node_text]).filter(|text| !text.is_empty());
        texts.map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// Everything that was printed while it ran.
    pub fn output(&self) -> String {
        format!("{}{}", self.captured_std_out_err, self.captured_ginkgo_writer_output)
    }
}

/// Answers on a free port of this machine for as long as this process lives; returns the port.
pub fn serve(desk: Arc<dyn Desk>) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("opening a port for the suite's reports")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            let desk = Arc::clone(&desk);
            // a process that hangs up in the middle has ended, which its parent sees
            thread::spawn(move || drop(converse(&stream, desk.as_ref())));
        }
    });
    Ok(port)
}

/// What a process is started with so that it reports here. `process` is counted from 1; only process 1 runs specs that
/// must run alone.
pub fn arguments(port: u16, process: usize, processes: usize) -> Vec<String> {
    vec![
        format!("--ginkgo.seed={SEED}"),
        format!("--ginkgo.parallel.process={process}"),
        format!("--ginkgo.parallel.total={processes}"),
        format!("--ginkgo.parallel.host=http://{}:{port}/{process}", Ipv4Addr::LOCALHOST),
        "--ginkgo.no-color".into(),
    ]
}

fn converse(stream: &TcpStream, desk: &dyn Desk) -> Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader)? {
        let (status, body) = match answer(&request, desk) {
            Ok(body) => ("200 OK", body),
            Err(error) => ("400 Bad Request", format!("{error:#}")),
        };
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut writer = stream;
        writer.write_all(format!("{head}{body}").as_bytes())?;
    }
    Ok(())
}

struct Request {
    /// `/<process>/<what>`
    path: String,
    body: Vec<u8>,
}

impl Request {
    /// The next one of a connection, or nothing at its end.
    fn read(reader: &mut impl BufRead) -> Result<Option<Self>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let path = line.split_whitespace().nth(1).context("a request names what it wants")?.to_owned();
        let mut length = 0;
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            match line.trim().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
                Some(_) => {}
                None if line.trim().is_empty() => break,
                None => bail!("{line:?} is no header"),
            }
        }
        if length > BODY_BYTES_MAX {
            bail!("a body of {length} bytes is too long");
        }
        let mut body = Vec::new();
        reader.take(length).read_to_end(&mut body)?;
        Ok(Some(Self { path, body }))
    }
}

fn answer(request: &Request, desk: &dyn Desk) -> Result<String> {
    let (process, what) = request.path.trim_start_matches('/').split_once('/').context("which process asks?")?;
    let process: usize = process.parse().context("processes have numbers")?;
    match what {
        "counter" => return Ok(format!(r#"{{"Index":{}}}"#, desk.next(process).unwrap_or(NOWHERE))),
        "report-before-suite-state" => return Ok(r#""passed""#.into()),
        "before-suite-state" => return Ok(PREPARED.into()),
        "aggregated-nonprimary-procs-report" => return Ok("{}".into()),
        "have-nonprimary-procs-finished" => desk.alone(process),
        "did-run" => desk.did_run(process, serde_json::from_slice(&request.body).context("reading a report")?),
        // beginnings, ends, output and progress: nothing that the reports of the specs would not say
        _ => {}
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Gives out two places and writes down what it is told.
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Desk for Notes {
        fn next(&self, process: usize) -> Option<usize> {
            let mut notes = self.0.lock().unwrap();
            notes.push(format!("{process} asks"));
            Some(40 + notes.len()).filter(|place| *place < 43)
        }

        fn alone(&self, process: usize) {
            self.0.lock().unwrap().push(format!("{process} alone"));
        }

        fn did_run(&self, process: usize, report: Report) {
            self.0.lock().unwrap().push(format!("{process} ran {}: {}", report.name(), report.state));
        }
    }

    fn asked(port: u16, requests: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(requests.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    }

    #[test]
    fn one_connection_carries_many_requests_and_work_ends_with_a_place_that_is_nowhere() {
        let desk = Arc::new(Notes::default());
        let port = serve(Arc::clone(&desk) as Arc<dyn Desk>).unwrap();
        let report =
            r#"{"ContainerHierarchyTexts":["[sig-x] A"],"LeafNodeType":"It","LeafNodeText":"b","State":"failed"}"#;
        let said = asked(
            port,
            &format!(
                "GET /3/counter HTTP/1.1\r\nHost: x\r\n\r\nPOST /3/did-run HTTP/1.1\r\ncontent-length: {}\r\n\r\n{report}\
                 GET /3/abort HTTP/1.1\r\n\r\nGET /3/counter HTTP/1.1\r\n\r\n",
                report.len()
            ),
        );
        assert_eq!(said.matches("200 OK").count(), 4, "{said}");
        assert!(said.contains(r#"{"Index":41}"#) && said.contains(&format!(r#"{{"Index":{NOWHERE}}}"#)), "{said}");
        assert_eq!(*desk.0.lock().unwrap(), ["3 asks", "3 ran [sig-x] A b: failed", "3 asks"]);
    }

    #[test]
    fn what_cannot_be_understood_is_refused_and_the_connection_goes_on() {
        let port = serve(Arc::new(Notes::default())).unwrap();
        let said = asked(port, "POST /1/did-run HTTP/1.1\r\nContent-Length: 1\r\n\r\n{GET /1/up HTTP/1.1\r\n\r\n");
        assert!(said.contains("400 Bad Request") && said.contains("200 OK"), "{said}");
    }
}
