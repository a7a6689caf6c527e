//! Each documented rule and each fault, seen by a real HTTP client over TCP.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has to panic")]

mod control;
mod ghostcut;
mod ghostcut_faults;
mod results;
mod s3;
mod signer;
mod support;
mod sync_so;
mod sync_so_faults;
mod sync_so_reads;
