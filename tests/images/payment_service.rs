//! The service of the rollout story (S-04), as one file that `rustc` alone can compile into a static program.
//!
//! Version 1.0 serves at once. From version 1.1 on it needs `DB_DSN`: while that is empty it says so in its log, and
//! `/ready` answers 503; everything else still answers, because the process itself is well. On SIGTERM it goes on
//! serving for a moment, as a polite service does while its address is being taken out of rotation, then ends with 0.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long requests are still answered after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);
const SIGTERM: i32 = 15;

static ENDING: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
}

extern "C" fn on_term(_number: i32) {
    ENDING.store(true, Ordering::SeqCst);
}

struct Service {
    version: String,
    dsn: String,
    host: String,
}

impl Service {
    fn needs_database(&self) -> bool {
        self.version != "1.0"
    }

    fn is_ready(&self) -> bool {
        !self.needs_database() || !self.dsn.is_empty()
    }

    fn answer(&self, path: &str) -> (&'static str, String) {
        match path {
            "/ready" if self.is_ready() => ("200 OK", "ready\n".into()),
            "/ready" => ("503 Service Unavailable", "not ready: DB_DSN is empty\n".into()),
            "/live" => ("200 OK", "alive\n".into()),
            "/" | "/pay" => ("200 OK", format!("payment-service {} on {}\n", self.version, self.host)),
            _ => ("404 Not Found", "no such page\n".into()),
        }
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut reader = BufReader::new(stream);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let mut header = String::new();
        while reader.read_line(&mut header)? > 0 && header.trim() != "" {
            header.clear();
        }
        let path = first.split_whitespace().nth(1).unwrap_or("/");
        let (status, body) = self.answer(path.split('?').next().unwrap_or("/"));
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n");
        reader.get_mut().write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes())
    }
}

fn main() {
    // SAFETY: the handler only stores to an atomic, which is allowed in a signal handler.
    unsafe { signal(SIGTERM, on_term) };
    let variable = |name| env::var(name).unwrap_or_default();
    let service = Service { version: variable("APP_VERSION"), dsn: variable("DB_DSN"), host: variable("HOSTNAME") };
    println!("payment-service {} listening on :8080", service.version);
    if !service.is_ready() {
        println!("ERROR payment-service {}: DB_DSN is empty, cannot reach the database: not ready", service.version);
    }
    thread::spawn(|| {
        while !ENDING.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(50));
        }
        println!("SIGTERM: serving on for {} s", GRACE.as_secs());
        thread::sleep(GRACE);
        std::process::exit(0);
    });
    let listener = TcpListener::bind(("::", 8080)).or_else(|_| TcpListener::bind(("0.0.0.0", 8080)));
    let listener = listener.expect("binding port 8080");
    let service: &'static Service = Box::leak(Box::new(service));
    for stream in listener.incoming().flatten() {
        // a client that went away is its own affair
        thread::spawn(move || drop(service.serve(stream)));
    }
}
