//! The 36 ways in which the replaced system paid twice, lost paid work or hung, by their numbers in its post-mortem: by which
//! tests each is kept out, or why it cannot arise here. The tests that exist for a number alone are in `jobs`.

mod jobs;

use std::path::{Path, PathBuf};

/// What is done about a scenario.
enum Kept {
    /// These tests would fail.
    By(&'static [&'static str]),
    /// There is nothing to test.
    Out(&'static str),
}
use Kept::{By, Out};

const SCENARIOS: &[(&str, Kept)] = &[
    (
        "1: the vendor's id is not persisted",
        By(&[
            "every_kind_is_completed_and_paid_once",
            "the_compare_and_set_never_overwrites_an_id",
        ]),
    ),
    (
        "2: one commit for a batch, after all were paid",
        By(&[
            "every_crash_point_is_survived",
            "a_worker_killed_after_ghostcut_accepted_costs_nothing",
        ]),
    ),
    (
        "3: one bad job rolls back the ids of all others",
        By(&[
            "regression_03_one_bad_job_affects_no_other",
            "one_bad_settlement_of_a_group_settles_none_of_it",
        ]),
    ),
    (
        "4: two runs submit the same job",
        By(&[
            "of_many_claims_at_once_one_may_send",
            "the_same_submit_message_at_several_workers_pays_once",
        ]),
    ),
    (
        "5: a failure overwrites a live paid work",
        By(&[
            "a_stale_actor_moves_nothing_but_its_fact_counts",
            "every_answer_twice_changes_nothing",
        ]),
    ),
    (
        "6: an unclear answer of GhostCut counts as failure",
        By(&["an_unclear_answer_is_cleared_up_and_never_paid_again"]),
    ),
    (
        "7: an upload lets the timer of another job's paid request expire",
        By(&["regression_07_a_slow_transfer_holds_up_no_other_job"]),
    ),
    (
        "8: every code but 1000 is final",
        By(&["refusals_for_now_make_jobs_wait", "submit_codes"]),
    ),
    (
        "9: the text None is stored as an id",
        By(&[
            "an_unclear_answer_is_cleared_up_and_never_paid_again",
            "an_id_is_text_or_number_but_never_a_word_for_nothing",
        ]),
    ),
    (
        "10: project and work ids in one field",
        By(&[
            "regression_10_a_submit_without_a_project_is_polled_by_its_work",
            "an_id_in_the_row_is_followed_and_not_overwritten",
        ]),
    ),
    (
        "11: status -1 counts as failure",
        By(&[
            "a_failed_work_ends_as_its_code_says",
            "process_status_table",
        ]),
    ),
    (
        "12: progress of 100 counts as success",
        By(&[
            "a_failed_work_ends_as_its_code_says",
            "a_work_succeeds_only_by_its_status_and_with_a_url",
        ]),
    ),
    (
        "13: a failure below 100 % is polled for ever",
        By(&[
            "regression_13_a_failure_is_final_at_any_progress",
            "the_detail_has_three_names",
        ]),
    ),
    (
        "14: trouble with the result fails a paid job",
        By(&[
            "no_answer_that_is_lost_or_late_is_paid_for_twice",
            "regression_14_a_result_that_cannot_be_fetched_at_first_is_fetched_later",
        ]),
    ),
    (
        "15: Sync.so without an idempotency key",
        By(&[
            "an_unclear_answer_is_cleared_up_and_never_paid_again",
            "a_create_sends_the_stored_bytes_under_its_key",
        ]),
    ),
    (
        "16: Sync.so accepted and the id is not committed",
        By(&[
            "a_worker_killed_after_sync_accepted_costs_nothing",
            "every_crash_point_is_survived",
        ]),
    ),
    (
        "17: 201 without an id",
        By(&[
            "an_unclear_answer_is_cleared_up_and_never_paid_again",
            "a_create_or_its_replay_is_accepted_by_its_id",
        ]),
    ),
    (
        "18: a client repeats a request that pays",
        By(&[
            "a_repeated_request_finds_the_job_it_made",
            "parallel_requests_under_one_key_make_one_job",
        ]),
    ),
    (
        "19: a result that cannot be fetched is fetched for ever",
        By(&[
            "regression_19_an_expired_result_is_asked_for_anew_but_not_for_ever",
            "a_result_that_is_always_gone_does_not_go_round_for_ever",
        ]),
    ),
    (
        "20: unknown states loop",
        By(&[
            "regression_20_every_end_of_a_generation_ends_its_job",
            "status_table",
            "failure_code_table",
        ]),
    ),
    (
        "21: each retry has another URL and another body",
        By(&[
            "a_worker_killed_after_sync_accepted_costs_nothing",
            "the_create_body_is_fixed_to_the_byte",
            "one_key_pays_once_and_no_key_pays_each_time",
        ]),
    ),
    (
        "22: whole files in memory",
        By(&["a_gibibyte_passes_through_64_mebibytes"]),
    ),
    (
        "23: an unordered set in the request",
        By(&["audio_comes_in_the_order_of_first_appearance"]),
    ),
    (
        "24: polled too often, one by one",
        By(&[
            "a_call_names_at_most_100_works",
            "one_status_is_a_get_and_several_are_a_batch",
            "schedules_read_repeat_and_stay_at_the_last",
        ]),
    ),
    (
        "25: a long task is delivered and submitted again",
        By(&[
            "the_same_submit_message_at_several_workers_pays_once",
            "every_answer_twice_changes_nothing",
        ]),
    ),
    (
        "26: a retry begins with the paid call",
        By(&[
            "no_answer_that_is_lost_or_late_is_paid_for_twice",
            "full_screen_only_where_every_mask_keeps",
        ]),
    ),
    (
        "27: a check of old jobs fails those that it cannot check",
        Out(
            "Nothing fails a job for its age: old ones are gauges and log lines, and an error of a status call is a retry.",
        ),
    ),
    (
        "28: one vendor is asked with the other's ids",
        By(&[
            "every_kind_is_completed_and_paid_once",
            "an_id_found_in_the_row_is_taken_over_and_not_paid_for_again",
        ]),
    ),
    (
        "29: jobs live in the memory of a process",
        By(&[
            "every_crash_point_is_survived",
            "several_producers_share_the_work",
        ]),
    ),
    (
        "30: a vendor's URL is handed on to the other",
        By(&["regression_30_ghostcut_reads_from_our_bucket_only"]),
    ),
    (
        "31: cancel and delete forget the paid work",
        By(&[
            "regression_31_a_deleted_job_leaves_its_ledger",
            "the_job_may_be_gone_and_the_answer_may_hold_anything",
        ]),
    ),
    (
        "32: bad effects cost money",
        By(&[
            "a_refused_request_stores_nothing_and_names_every_fault",
            "invalid_rows_name_column_and_place",
        ]),
    ),
    (
        "33: what was lost cannot be found",
        By(&[
            "the_submit_body_is_fixed_to_the_byte",
            "a_lost_ghostcut_request_is_sent_anew_after_a_search_with_a_control",
        ]),
    ),
    (
        "34: a task's old copy revives a canceled job",
        By(&["regression_34_a_canceled_job_stays_canceled"]),
    ),
    (
        "35: file names in URLs",
        By(&[
            "regression_35_any_file_name_will_do",
            "keys_have_their_fixed_paths_and_types",
        ]),
    ),
    (
        "36: an early error leaves a row that never changes",
        By(&[
            "a_refused_request_stores_nothing_and_names_every_fault",
            "whatever_is_wrong_is_told_before_anything_is_stored",
        ]),
    ),
];

#[test]
fn each_of_the_36_scenarios_is_kept_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let texts: Vec<String> = ["producer", "worker", "shared", "tests"]
        .iter()
        .flat_map(|folder| sources(root.join(folder)))
        .collect();
    let is_test = |name: &str| texts.iter().any(|text| runs(text, name));
    let mut faults = Vec::new();
    for (at, (scenario, kept)) in SCENARIOS.iter().enumerate() {
        if !scenario.starts_with(&format!("{}: ", at + 1)) {
            faults.push(format!("{scenario}: not in its place"));
        }
        match kept {
            By(tests) => {
                let missing = tests.iter().filter(|test| !is_test(test));
                faults.extend(missing.map(|test| format!("{scenario}: no test {test}")));
                if tests.is_empty() {
                    faults.push(format!("{scenario}: nothing"));
                }
            }
            Out(why) if why.ends_with('.') && why.len() > 40 => {}
            Out(_) => faults.push(format!("{scenario}: no reason")),
        }
    }
    assert_eq!(SCENARIOS.len(), 36);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Whether a source defines a test of this name that runs: among the attributes and comments right above it is one that makes it a
/// test and none that skips it.
fn runs(text: &str, name: &str) -> bool {
    let Some((before, _)) = text.split_once(&format!("fn {name}(")) else {
        return false;
    };
    let above = before.trim_end().trim_end_matches("async").trim_end();
    let mut is_test = false;
    for line in above.lines().rev().map(str::trim) {
        if line.starts_with("#[ignore") {
            return false;
        }
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        if !(line.starts_with("#[") || line.starts_with("//")) {
            break;
        }
    }
    is_test
}

#[test]
fn a_test_that_is_ignored_keeps_nothing_out() {
    let with = |attributes: &str| format!("}}\n\n{attributes}\nasync fn it_holds() {{}}\n");
    for runs_it in [
        "#[test]",
        "/// Why.\n#[tokio::test(flavor = \"multi_thread\")]",
    ] {
        assert!(runs(&with(runs_it), "it_holds"), "{runs_it}");
    }
    let ignored = [
        "#[ignore]\n#[test]",
        "#[test]\n#[ignore = \"slow\"]",
        "#[ignore]\n/// Why.\n#[test]",
        "/// Why.",
        "",
    ];
    for skips in ignored {
        assert!(!runs(&with(skips), "it_holds"), "{skips}");
    }
}

fn sources(folder: PathBuf) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(std::fs::read_to_string(path).unwrap());
        }
    }
    found
}
