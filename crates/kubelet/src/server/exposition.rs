//! Prometheus' text format: families of samples, written one after the other.

use std::fmt::Write;

/// The content type that scrapers of this format expect.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One value with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub labels: Vec<(String, String)>,
    pub value: f64,
    /// When it was taken; `None` for just now.
    pub at_ms: Option<i64>,
}

impl Sample {
    pub fn new(labels: &[(&str, &str)], value: f64) -> Self {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Sample { labels, value, at_ms: None }
    }

    pub fn at(self, at_ms: i64) -> Self {
        Sample { at_ms: Some(at_ms), ..self }
    }
}

/// The text under construction.
#[derive(Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Writes a family; `kind` is `counter` or `gauge`. One without samples is left out.
    pub fn family(&mut self, name: &str, kind: &str, help: &str, samples: impl IntoIterator<Item = Sample>) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for sample in samples {
            self.sample(name, &sample);
        }
    }

    fn sample(&mut self, name: &str, sample: &Sample) {
        self.text.push_str(name);
        for (index, (label, value)) in sample.labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.text.push_str(&format!("{label}=\"{value}\""));
        }
        self.text.push_str(if sample.labels.is_empty() { " " } else { "} " });
        // Writing into a string cannot fail.
        let _ = write!(self.text, "{}", sample.value);
        if let Some(at_ms) = sample.at_ms {
            let _ = write!(self.text, " {at_ms}");
        }
        self.text.push('\n');
    }

    /// What has been written.
    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_scrapers_read_them() {
        let mut exposition = Exposition::default();
        exposition.family("empty", "gauge", "Nothing", []);
        let odd = Sample::new(&[("a", "say \"hi\"\\\n"), ("b", "")], 1.5).at(1_700_000_000_000);
        exposition.family("x_total", "counter", "Two\nlines", [odd, Sample::new(&[], 134_217_728.0)]);
        assert_eq!(
            exposition.finish(),
            "# HELP x_total Two\\nlines\n# TYPE x_total counter\n\
             x_total{a=\"say \\\"hi\\\"\\\\\\n\",b=\"\"} 1.5 1700000000000\nx_total 134217728\n"
        );
    }
}
