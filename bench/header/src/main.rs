//! Parses the header of one file several times: `tensafe-bench-header ours|reference FILE TIMES`.
//!
//! Every result is kept until the end and none is freed: what is counted is parsing and validating
//! alone. Prints the number of tensors, so that both are seen to read the same.
#![forbid(unsafe_code)]

use std::{
    env,
    error::Error,
    fs::File,
    hint::black_box,
    io::Read as _,
    process::{ExitCode, exit},
};

use safetensors::SafeTensors;
use tensafe_format::{Header, ParseOptions, header_range};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [parser, path, times] = &arguments[..] else {
        eprintln!("usage: tensafe-bench-header ours|reference FILE TIMES");
        return ExitCode::from(2);
    };
    match run(parser, path, times) {
        // Ends without freeing what was parsed.
        Ok(tensors) => {
            println!("{tensors}");
            exit(0)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(parser: &str, path: &str, times: &str) -> Result<usize, Box<dyn Error>> {
    let bytes = file(path)?;
    let times: usize = times.parse()?;
    match parser {
        "ours" => {
            let options = ParseOptions::default();
            let parse = || Header::parse(black_box(&bytes), bytes.len() as u64, &options);
            Ok(repeat(times, parse)?.len())
        }
        "reference" => {
            let (_, last) = repeat(times, || SafeTensors::read_metadata(black_box(&bytes)))?;
            Ok(last.offset_keys().len())
        }
        other => Err(format!("`{other}` is neither `ours` nor `reference`").into()),
    }
}

/// The last result. The others stay in memory.
fn repeat<T, E>(times: usize, parse: impl Fn() -> Result<T, E>) -> Result<T, E> {
    for _ in 1..times {
        std::mem::forget(black_box(parse()?));
    }
    parse()
}

/// A file of this length that begins with the header of `path`. Its data is zeros, which the
/// operating system has not to provide: both look at the length alone.
fn file(path: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut start = [0; 8];
    file.read_exact(&mut start)?;
    let header = header_range(&start, len, &ParseOptions::default())?;
    let mut bytes = vec![0; usize::try_from(len)?];
    bytes[..8].copy_from_slice(&start);
    file.read_exact(&mut bytes[8..usize::try_from(header.end)?])?;
    Ok(bytes)
}
