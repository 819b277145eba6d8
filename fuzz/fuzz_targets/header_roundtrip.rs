//! Whatever bytes come in:
//!
//! - nothing panics, and memory stays within the limits (libFuzzer's own bound watches it);
//! - a diagnosis is empty exactly when parsing succeeds, and else begins with the error of parsing;
//! - what is read strictly is what the naive reader reads, and can be laid out again from its
//!   tensors and metadata to a file with the same of both, whose header is then stable.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tensafe_testkit::checks;

fuzz_target!(|file: &[u8]| {
    checks::diagnosis_agrees_with_parsing(file);
    checks::round_trips(file);
});
