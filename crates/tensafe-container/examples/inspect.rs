//! Says of each file what it is, what it holds, and what is wrong with it:
//! `cargo run --example inspect -- FILE...`
#![allow(clippy::print_stdout, reason = "it is what an example is for")]

use std::{error::Error, sync::Arc};

use tensafe_container::{Kind, Limits, Npy, Tar, Zip, decompress, detect};
use tensafe_io::{FileSource, Source};

fn inspect(source: Arc<dyn Source>, indent: usize) -> Result<(), Box<dyn Error>> {
    let limits = Limits::default();
    let kind = detect(&source)?;
    println!("{:indent$}{kind}, {} bytes", "", source.len());
    match kind {
        Kind::Zip => {
            let zip = Zip::survey(source, &limits)?;
            for member in zip.members() {
                match zip.check_crc(member) {
                    Ok(state) => println!("{:indent$}  `{}`: {state:?}", "", member.name()),
                    Err(error) => println!("{:indent$}  {error}", ""),
                }
            }
            for flaw in zip.flaws() {
                println!("{:indent$}  {} {flaw}", "", if flaw.grave() { "error:" } else { "warning:" });
            }
        }
        Kind::Tar => {
            let tar = Tar::open(source, &limits)?;
            for entry in tar.entries() {
                println!("{:indent$}  `{}`: {:?}, {:?}", "", entry.name(), entry.kind(), entry.range());
            }
            tar.flaws().iter().for_each(|flaw| println!("{:indent$}  warning: {flaw}", ""));
        }
        Kind::Npy => println!("{:indent$}  {:?}", "", Npy::read(&source, 0, &limits)?),
        kind if kind.is_compressed() => inspect(decompress(source, kind, &limits)?, indent + 2)?,
        _ => {}
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    for path in std::env::args_os().skip(1) {
        println!("{}", path.display());
        let outcome = FileSource::open(&path).map_err(Box::from).and_then(|file| inspect(Arc::new(file), 2));
        if let Err(error) = outcome {
            println!("  {}", tensafe_io::Chain(&*error));
        }
    }
    Ok(())
}
