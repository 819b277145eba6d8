//! Files seen as one map from names to tensors.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use tensafe_format::{Metadata, Mode, TensorInfo};
use tensafe_io::{OpenOptions, TensorFile};

use crate::{Error, Located, locate};

/// An open model: its files, and which of them holds which tensor.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<TensorFile>,
    /// From a name to the place of its file.
    names: BTreeMap<String, usize>,
    path: Option<PathBuf>,
}

impl Checkpoint {
    /// Opens what `path` means, see [`locate`].
    ///
    /// # Errors
    /// As [`locate`] and [`TensorFile::open`]; [`Format`](crate::ErrorKind::Format) where a name
    /// stands in two files, or where index and shards disagree. Lenient options let a shard hold
    /// tensors that the index does not name; they are left out.
    ///
    /// # Cost
    /// Reads the header of each file.
    ///
    /// Spec: S-30 to S-32.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, Error> {
        let path = path.as_ref();
        let mut model = match locate(path)? {
            Located::Files(paths) => {
                let files = paths.iter().map(|path| TensorFile::open(path, options));
                Self::from_files(files.collect::<Result<_, _>>()?)?
            }
            Located::Index { directory, index, .. } => {
                let mut files = Vec::new();
                let mut places = BTreeMap::new();
                for (place, name) in index.files().into_iter().enumerate() {
                    files.push(TensorFile::open(directory.join(name), options)?);
                    places.insert(name, place);
                }
                let mut names = BTreeMap::new();
                for (name, file) in &index.weight_map {
                    let place = places.get(file.as_str()).copied().unwrap_or_default();
                    if files.get(place).is_none_or(|f: &TensorFile| f.header().position(name).is_none()) {
                        return Err(Error::not_in_shard(name, &directory.join(file)));
                    }
                    names.insert(name.clone(), place);
                }
                if options.parse.mode == Mode::Strict {
                    nothing_unnamed(&files, &names)?;
                }
                Self { files, names, path: None }
            }
        };
        model.path = Some(path.to_owned());
        Ok(model)
    }

    /// Takes open files.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) where a name stands in two of them.
    pub fn from_files(files: Vec<TensorFile>) -> Result<Self, Error> {
        let mut names = BTreeMap::new();
        for (place, file) in files.iter().enumerate() {
            for tensor in file.header().tensors() {
                if let Some(first) = names.insert(tensor.name().to_owned(), place) {
                    let path = |place: usize| {
                        files.get(place).and_then(TensorFile::path).unwrap_or_else(|| Path::new(""))
                    };
                    return Err(Error::named_twice(tensor.name(), path(first), path(place)));
                }
            }
        }
        Ok(Self { files, names, path: None })
    }

    /// What the model was opened by.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The files, in the order of their names.
    #[must_use]
    pub fn files(&self) -> &[TensorFile] {
        &self.files
    }

    /// The number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are no tensors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names with the place of their file, in the order of the names.
    pub fn names(&self) -> impl ExactSizeIterator<Item = (&str, usize)> {
        self.names.iter().map(|(name, place)| (name.as_str(), *place))
    }

    /// The tensors, in the order of their names.
    pub fn tensors(&self) -> impl Iterator<Item = (&TensorFile, TensorInfo<'_>)> {
        self.names.iter().filter_map(|(name, place)| {
            let file = self.files.get(*place)?;
            Some((file, file.header().tensor(name).ok()?))
        })
    }

    /// The tensor called `name` and the file that holds it.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub fn find(&self, name: &str) -> Result<(&TensorFile, TensorInfo<'_>), Error> {
        let file = self.names.get(name).and_then(|place| self.files.get(*place));
        let file = file.ok_or_else(|| Error::not_found(name))?;
        Ok((file, file.info(name)?))
    }

    /// The metadata of all files, the first file's value where two have a key.
    #[must_use]
    pub fn metadata(&self) -> Option<Metadata> {
        let mut all: Option<Metadata> = None;
        for metadata in self.files.iter().filter_map(|file| file.header().metadata()) {
            let all = all.get_or_insert_default();
            for (key, value) in metadata {
                all.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        all
    }
}

/// S-32, the other way round.
fn nothing_unnamed(files: &[TensorFile], names: &BTreeMap<String, usize>) -> Result<(), Error> {
    for (place, file) in files.iter().enumerate() {
        let unnamed = file.header().tensors().find(|t| names.get(t.name()) != Some(&place));
        if let Some(tensor) = unnamed {
            return Err(Error::not_in_index(tensor.name(), file.path().unwrap_or_else(|| Path::new(""))));
        }
    }
    Ok(())
}
