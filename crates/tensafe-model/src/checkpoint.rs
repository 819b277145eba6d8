//! Files seen as one map from names to tensors.

use std::{
    collections::BTreeMap,
    iter,
    path::{Path, PathBuf},
};

use tensafe_format::{Metadata, Mode, TensorInfo};
use tensafe_io::{OpenOptions, TensorFile};

use crate::{Error, Located, locate};

/// An open model: its files, and which of them holds which tensor.
///
/// Names stand in the headers of the files alone.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<TensorFile>,
    /// The tensors in the order of their names; `None` where they are those of the only file, whose
    /// header has that order.
    order: Option<Vec<Place>>,
    path: Option<PathBuf>,
}

/// Where a tensor stands: a file, and a place in the order of its bytes.
#[derive(Clone, Copy, Debug)]
struct Place {
    file: usize,
    tensor: usize,
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
                let mut order = Vec::with_capacity(index.weight_map.len());
                for (name, file) in &index.weight_map {
                    let place = places.get(file.as_str()).copied().unwrap_or_default();
                    let tensor = files.get(place).and_then(|f: &TensorFile| f.header().position(name));
                    let tensor = tensor.ok_or_else(|| Error::not_in_shard(name, &directory.join(file)))?;
                    order.push(Place { file: place, tensor });
                }
                if options.parse.mode == Mode::Strict {
                    nothing_unnamed(&files, &order)?;
                }
                Self { files, order: Some(order), path: None }
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
        if files.len() == 1 {
            return Ok(Self { files, order: None, path: None });
        }
        // Names side by side with their places: the sort looks at nothing else, and merges the names
        // of the headers, each of which has them in order.
        let mut named: Vec<(&str, Place)> = Vec::new();
        for (place, file) in files.iter().enumerate() {
            let header = file.header();
            let places = header.places_by_name().map(|tensor| Place { file: place, tensor });
            named.extend(header.tensors_by_name().map(|tensor| tensor.name()).zip(places));
        }
        named.sort_by(|(a, a_place), (b, b_place)| a.cmp(b).then(a_place.file.cmp(&b_place.file)));
        named_once(&files, &named)?;
        let order = named.into_iter().map(|(_, place)| place).collect();
        Ok(Self { files, order: Some(order), path: None })
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
        match &self.order {
            Some(order) => order.len(),
            None => self.files.iter().map(|file| file.header().len()).sum(),
        }
    }

    /// Whether there are no tensors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all tensors of the files belong to the model. An index that is read leniently may leave
    /// some out.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.len() == self.files.iter().map(|file| file.header().len()).sum::<usize>()
    }

    /// The names with the place of their file, in the order of the names.
    pub fn names(&self) -> impl ExactSizeIterator<Item = (&str, usize)> {
        self.by_name().map(|(file, info)| (info.name(), file))
    }

    /// The tensors, in the order of their names.
    pub fn tensors(&self) -> impl Iterator<Item = (&TensorFile, TensorInfo<'_>)> {
        self.by_name().filter_map(|(file, info)| Some((self.files.get(file)?, info)))
    }

    /// The tensor called `name` and the file that holds it.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    ///
    /// # Cost
    /// One binary search.
    pub fn find(&self, name: &str) -> Result<(&TensorFile, TensorInfo<'_>), Error> {
        let found = match &self.order {
            None => self.files.iter().find_map(|file| {
                let place = file.header().position(name)?;
                Some((file, file.header().tensor_at(place)?))
            }),
            Some(order) => {
                let place = order.binary_search_by(|place| info(&self.files, *place).name().cmp(name));
                let place = place.ok().and_then(|place| order.get(place));
                place.and_then(|place| Some((self.files.get(place.file)?, info(&self.files, *place))))
            }
        };
        found.ok_or_else(|| Error::not_found(name))
    }

    /// The tensors with the place of their file, in the order of their names.
    fn by_name(&self) -> Box<dyn ExactSizeIterator<Item = (usize, TensorInfo<'_>)> + '_> {
        match (&self.order, self.files.first()) {
            (Some(order), _) => Box::new(order.iter().map(|place| (place.file, info(&self.files, *place)))),
            (None, Some(file)) => Box::new(file.header().tensors_by_name().map(|info| (0, info))),
            (None, None) => Box::new(iter::empty()),
        }
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

fn info(files: &[TensorFile], place: Place) -> TensorInfo<'_> {
    let tensor = files.get(place.file).and_then(|file| file.header().tensor_at(place.tensor));
    tensor.expect("places are taken from the headers of these files")
}

fn path_at(files: &[TensorFile], place: usize) -> &Path {
    files.get(place).and_then(TensorFile::path).unwrap_or_else(|| Path::new(""))
}

/// S-32: no name stands in two files. `named` is sorted by name, then file. Of several names, the
/// one that is met first in the order of the files and of the bytes in them is told.
fn named_once(files: &[TensorFile], named: &[(&str, Place)]) -> Result<(), Error> {
    let twice = named.windows(2).filter_map(|pair| match pair {
        [(a, first), (b, second)] if a == b => Some((*a, first.file, *second)),
        _ => None,
    });
    match twice.min_by_key(|(_, _, second)| (second.file, second.tensor)) {
        Some((name, first, second)) => {
            Err(Error::named_twice(name, path_at(files, first), path_at(files, second.file)))
        }
        None => Ok(()),
    }
}

/// S-32, the other way round.
fn nothing_unnamed(files: &[TensorFile], order: &[Place]) -> Result<(), Error> {
    let mut named: Vec<_> = files.iter().map(|file| vec![false; file.header().len()]).collect();
    for place in order {
        if let Some(named) = named.get_mut(place.file).and_then(|file| file.get_mut(place.tensor)) {
            *named = true;
        }
    }
    for (file, named) in files.iter().zip(named) {
        let unnamed = file.header().tensors().zip(named).find(|(_, named)| !named);
        if let Some((tensor, _)) = unnamed {
            return Err(Error::not_in_index(tensor.name(), file.path().unwrap_or_else(|| Path::new(""))));
        }
    }
    Ok(())
}
