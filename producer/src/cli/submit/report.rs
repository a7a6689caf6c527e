//! What came of the jobs, on standard output.

use std::io::{self, Write};

use serde_json::json;
use shared::domain::JobStatus;

use super::display::printable;
use super::follow::Watched;
use crate::web::{JobDocument, redacted};

/// What came of one job: it was stored, or why not.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) line: Option<usize>,
    pub(super) outcome: Result<Watched, String>,
}

impl Report {
    /// Whether it is as it should be: stored, and where it was followed, completed.
    pub(super) fn is_good(&self, followed: bool) -> bool {
        self.outcome
            .as_ref()
            .is_ok_and(|job| !followed || job.status() == Some(JobStatus::Completed))
    }

    /// Job, status and what more there is to say.
    fn columns(&self) -> (String, String, String) {
        match &self.outcome {
            Err(error) => ("-".to_owned(), "not stored".to_owned(), error.clone()),
            Ok(watched) => {
                let id = watched.id.to_string();
                let Some(job) = &watched.job else {
                    return (id, "deleted".to_owned(), String::new());
                };
                let detail = job.output_url.clone().or(job.error_message.clone());
                let detail = detail.map(redacted).unwrap_or_default();
                (id, job.status.clone(), detail)
            }
        }
    }
}

/// One JSON object a line; or one line for the job of the command line, a table for those of a file.
pub(super) fn print(out: &mut impl Write, reports: &[Report], as_json: bool) -> io::Result<()> {
    if as_json {
        for report in reports {
            let mut object = match &report.outcome {
                Ok(watched) => match &watched.job {
                    Some(job) => json!(JobDocument::new(job.clone(), watched.stage.clone())),
                    None => json!({"id": watched.id, "status": null}),
                },
                Err(error) => json!({"id": null, "error": {"message": error}}),
            };
            if let Some(line) = report.line {
                object["line"] = line.into();
            }
            writeln!(out, "{object}")?;
        }
        return out.flush();
    }
    let is_table = reports.iter().any(|report| report.line.is_some());
    if is_table {
        writeln!(out, "{:>6}  {:36}  {:10}  DETAIL", "LINE", "JOB", "STATUS")?;
    }
    for report in reports {
        let (job, status, detail) = report.columns();
        let detail = printable(&detail);
        let text = match report.line {
            Some(line) => format!("{line:>6}  {job:36}  {status:10}  {detail}"),
            None => format!("{job} {status} {detail}"),
        };
        writeln!(out, "{}", text.trim_end())?;
    }
    out.flush()
}
