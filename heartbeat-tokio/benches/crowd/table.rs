//! The table: its rows, their limits, and what is done with them.

use std::{fs, io, io::Write};

use crate::process::Arguments;

/// Figures of one kind, and what ours is to stay below.
pub(crate) struct Row {
    pub(crate) input: String,
    pub(crate) unit: &'static str,
    /// What people have without a heartbeat.
    pub(crate) plain: Option<f64>,
    pub(crate) ours: f64,
    pub(crate) at_most: Limit,
}

#[derive(Clone, Copy)]
pub(crate) enum Limit {
    /// A multiple of plain's figure, or the given figure if that is more.
    TimesPlain(f64, f64),
    Figure(f64),
}

/// Measures rows, and hands each on as soon as it is there.
pub(crate) type Rows = fn(&Arguments, &mut dyn FnMut(Row)) -> io::Result<()>;

/// Measures all rows and prints them.
///
/// # Errors
///
/// A process can't be started; or, with `--check`, a row is above its limit.
pub(crate) fn run(arguments: &Arguments, all: &[Rows]) -> io::Result<()> {
    println!(
        "{:<44} {:>10} {:>10} {:>9}  unit",
        "input", "plain", "heartbeat", "at most"
    );
    let mut rows = Vec::new();
    for measure in all {
        measure(arguments, &mut |row| {
            println!("{}", row.line());
            let _ = io::stdout().flush();
            rows.push(row);
        })?;
    }
    if let Some(file) = arguments.value("--json") {
        let rows: Vec<String> = rows.iter().map(Row::json).collect();
        fs::write(file, format!("{{\"rows\":[{}]}}\n", rows.join(",")))?;
    }
    let missed: Vec<String> = rows
        .iter()
        .filter(|row| row.is_missed())
        .map(Row::line)
        .collect();
    match arguments.has("--check") && !missed.is_empty() {
        true => Err(io::Error::other(format!(
            "above the limit:\n{}",
            missed.join("\n")
        ))),
        false => Ok(()),
    }
}

impl Row {
    fn limit(&self) -> f64 {
        match (self.at_most, self.plain) {
            (Limit::TimesPlain(times, least), Some(plain)) => (times * plain).max(least),
            (Limit::TimesPlain(..), None) => f64::INFINITY,
            (Limit::Figure(figure), _) => figure,
        }
    }

    fn is_missed(&self) -> bool {
        self.ours > self.limit()
    }

    fn line(&self) -> String {
        let missed = if self.is_missed() { "  missed" } else { "" };
        let plain = self
            .plain
            .map_or("–".to_owned(), |plain| format!("{plain:.1}"));
        format!(
            "{:<44} {plain:>10} {:>10.1} {:>9}  {}{missed}",
            self.input,
            self.ours,
            Some(self.limit())
                .filter(|limit| limit.is_finite())
                .map_or("–".to_owned(), |limit| format!("{limit:.1}")),
            self.unit
        )
    }

    fn json(&self) -> String {
        let plain = self
            .plain
            .map_or("null".to_owned(), |plain| format!("{plain:.3}"));
        format!(
            r#"{{"input":"{}","plain":{plain},"ours":{:.3},"at_most":{},"unit":"{}"}}"#,
            self.input,
            self.ours,
            Some(self.limit())
                .filter(|limit| limit.is_finite())
                .map_or("null".to_owned(), |limit| format!("{limit:.3}")),
            self.unit
        )
    }
}
