//! How vendors misbehave in a chaos run. Only what may happen without the vendor lying about money: a list that hides what it
//! has for good, or a work that is taken twice, nobody could tell from a loss.

use sandbox::{Fault, FaultRule, Operation, Vendor, When};

use Operation::{Callback, List, Process, Result as Download, Status, Submit};
use When::{After, Before};

fn status(status: u16, when: When) -> Fault {
    Fault::Status {
        status,
        error_code: None,
        body: None,
        when,
    }
}

const fn delay(ms: u64, when: When) -> Fault {
    Fault::Delay { ms, when }
}

/// What both vendors do.
fn common(vendor: Vendor) -> Vec<FaultRule> {
    let often = |operation, fault| FaultRule::new(vendor, operation, fault).with_probability(0.5);
    let page = Fault::Status {
        status: 200,
        error_code: None,
        body: Some("<html>try again later</html>".to_owned()),
        when: Before,
    };
    vec![
        often(Submit, Fault::LoseAnswer),
        often(Submit, Fault::LoseRequest),
        often(Submit, delay(1_500, Before)),
        often(Submit, delay(2_500, Before)),
        often(Submit, delay(1_500, After)),
        often(Submit, status(503, Before)),
        often(Submit, status(502, After)),
        often(Submit, status(429, Before)),
        often(Submit, Fault::Garbage),
        often(Submit, Fault::Truncate { bytes: 20 }),
        // Longer than anybody waits for the answer; the callback is there before it.
        often(Submit, Fault::CallbackFirst { timeout_ms: 8_000 }),
        often(Status, status(500, Before)),
        often(Status, Fault::Garbage),
        often(Status, Fault::Truncate { bytes: 30 }),
        often(Status, Fault::LoseAnswer),
        often(Status, delay(1_500, After)),
        often(List, status(500, Before)),
        often(List, Fault::Garbage),
        often(List, Fault::HideYoung { ms: 3_000 }),
        often(
            List,
            Fault::DropItems {
                contains: String::new(),
            },
        ),
        often(List, Fault::ReverseItems),
        often(Download, Fault::LoseRequest),
        often(Download, status(500, Before)),
        often(Download, Fault::Truncate { bytes: 10_000 }),
        often(Download, page),
        often(
            Download,
            Fault::Slow {
                bytes_per_second: 200_000,
            },
        ),
        often(Callback, Fault::LoseRequest),
        often(Callback, Fault::Repeat { times: 3 }),
        often(Callback, Fault::BadSignature),
        often(Callback, delay(5_000, Before)),
        FaultRule::new(vendor, Process, Fault::Duration { ms: 15_000 }).times(2),
    ]
}

pub(crate) fn sync() -> Vec<FaultRule> {
    let often =
        |operation, fault| FaultRule::new(Vendor::Sync, operation, fault).with_probability(0.5);
    let unknown = |generation_id, when| Fault::OutcomeUnknown {
        generation_id,
        when,
    };
    let mut rules = common(Vendor::Sync);
    rules.extend([
        often(Submit, unknown(false, Before)),
        often(Submit, unknown(true, After)),
        often(Submit, delay(1_500, When::During)),
        often(
            Status,
            Fault::Omit {
                keys: vec!["outputUrl".to_owned()],
            },
        ),
    ]);
    rules
}

pub(crate) fn ghostcut() -> Vec<FaultRule> {
    let often =
        |operation, fault| FaultRule::new(Vendor::Ghostcut, operation, fault).with_probability(0.5);
    let code = |code, when| Fault::Code { code, when };
    let omit = |keys: &[&str]| Fault::Omit {
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
    };
    let redone = Fault::Statuses {
        codes: vec![0, 18],
        step_ms: None,
        progress: None,
    };
    let mut rules = common(Vendor::Ghostcut);
    rules.extend([
        often(Submit, code(9999, Before)),
        often(Submit, code(9999, After)),
        often(Submit, code(3006, Before)),
        often(Submit, omit(&["idProject"])),
        often(Submit, omit(&["dataList"])),
        often(Status, code(9999, Before)),
        often(List, code(9999, Before)),
        often(List, omit(&["name"])),
        FaultRule::new(Vendor::Ghostcut, Process, redone).times(1),
    ]);
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_sandbox_takes_every_rule() {
        let sandbox = sandbox::Sandbox::start(sandbox::SandboxConfig::default());
        let sandbox = sandbox.await.unwrap();
        for rule in sync().into_iter().chain(ghostcut()) {
            let shown = format!("{rule:?}");
            sandbox.faults().add(rule).expect(&shown);
        }
        sandbox.stop().await;
    }
}
