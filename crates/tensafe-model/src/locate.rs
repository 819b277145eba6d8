//! From what a user names to the files that are meant: rules S-30 to S-32.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tensafe_format::ShardIndex;
use tensafe_io::{FileSource, Source as _};

use crate::Error;

/// An index larger than this is no index. The largest published ones hold a few MB.
const MOST_INDEX_BYTES: u64 = 100_000_000;

/// The files of a model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Located {
    /// Files without an index: one, or all of a directory.
    Files(Vec<PathBuf>),
    /// An index and the directory that its file names are relative to.
    Index {
        /// The path of the index.
        path: PathBuf,
        /// The directory of the shards.
        directory: PathBuf,
        /// The index.
        index: ShardIndex,
    },
}

/// Finds the weights that `path` means: a file; an index of shards (`*.index.json`); or a directory,
/// in which an index comes before `model.safetensors`, and that before all `*.safetensors` together.
///
/// # Errors
/// [`NotFound`](crate::ErrorKind::NotFound) where there is nothing of the kind,
/// [`Format`](crate::ErrorKind::Format) where the index is broken, [`Io`](crate::ErrorKind::Io).
///
/// # Cost
/// Lists one directory and reads the index; opens no weights.
pub fn locate(path: impl AsRef<Path>) -> Result<Located, Error> {
    let path = path.as_ref();
    if path.is_dir() {
        return locate_in(path);
    }
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
        return read_index(path);
    }
    Ok(Located::Files(vec![path.to_owned()]))
}

fn locate_in(directory: &Path) -> Result<Located, Error> {
    let mut weights = Vec::new();
    let mut indices = Vec::new();
    let entries = fs::read_dir(directory).map_err(|e| tensafe_io::Error::from_os("list", directory, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| tensafe_io::Error::from_os("list", directory, e))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Names that begin with a dot are files in the making, ours among them.
        if name.starts_with('.') {
            continue;
        }
        if name.ends_with(".safetensors.index.json") {
            indices.push(entry.path());
        } else if name.ends_with(".safetensors") {
            weights.push(entry.path());
        }
    }
    weights.sort();
    indices.sort();
    let preferred = |paths: &[PathBuf], stem: &str| {
        let main = paths.iter().find(|p| p.file_name().is_some_and(|n| n == stem));
        main.or_else(|| paths.first().filter(|_| paths.len() == 1)).cloned()
    };
    if let Some(index) = preferred(&indices, "model.safetensors.index.json") {
        return read_index(&index);
    }
    let whole = weights.iter().find(|p| p.file_name().is_some_and(|n| n == "model.safetensors"));
    match (whole, weights.is_empty()) {
        (Some(whole), _) => Ok(Located::Files(vec![whole.clone()])),
        (None, true) => Err(Error::no_weights(directory)),
        (None, false) => Ok(Located::Files(weights)),
    }
}

fn read_index(path: &Path) -> Result<Located, Error> {
    let source = FileSource::open(path)?;
    let bytes = source.len();
    if bytes > MOST_INDEX_BYTES {
        return Err(tensafe_io::Error::short(Some(path), 0, MOST_INDEX_BYTES, bytes).into());
    }
    let mut text = vec![0; usize::try_from(bytes).unwrap_or(0)];
    source.read_at(0, &mut text)?;
    let index = ShardIndex::parse(&text).map_err(|e| Error::index(path, e))?;
    let directory = path.parent().map(Path::to_owned).unwrap_or_default();
    Ok(Located::Index { path: path.to_owned(), directory, index })
}
