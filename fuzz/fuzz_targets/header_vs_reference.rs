//! Against the published implementation, whatever bytes come in:
//!
//! - lenient reading accepts exactly what the reference accepts, with the same names, dtypes,
//!   shapes, offsets and metadata (the one exclusion, numbers at the edge of what a float holds, is
//!   described at `agrees_with_reference`);
//! - what is read strictly is read leniently, with the same result;
//! - where only lenient reading succeeds, the strict error says so.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tensafe_testkit::checks;

fuzz_target!(|file: &[u8]| checks::agrees_with_reference(file));
