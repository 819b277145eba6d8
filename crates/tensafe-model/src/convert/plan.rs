//! Which tensor goes under which name into which file.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use tensafe_format::{
    Dtype, Layout, LayoutOptions, Metadata, TensorSpec, shard_name, split_into_shards, tensor_bytes,
};

use super::{ConvertOptions, options::Names};
use crate::{
    Error, Pickled,
    cast::Cast,
    gather::Gather,
    pickled::{FoundTensor, Refusal, dtype_of},
};

/// The name of the file that a directory gets.
const FILE_NAME: &str = "model.safetensors";

/// A conversion that was planned: what will be written where. Nothing is written before
/// [`write`](Self::write).
#[derive(Debug)]
pub struct Conversion {
    pub(super) pickled: Pickled,
    pub(super) tensors: Vec<PlannedTensor>,
    pub(super) files: Vec<PlannedFile>,
    pub(super) aliases: BTreeMap<String, String>,
    pub(super) left_out: Vec<String>,
    pub(super) index: Option<PathBuf>,
    pub(super) output: PathBuf,
    pub(super) options: ConvertOptions,
}

/// A tensor as it will be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedTensor {
    /// The name in the output.
    pub name: String,
    /// The name in the checkpoint.
    pub found: String,
    /// The dtype in the output.
    pub dtype: Dtype,
    /// Elements in each dimension, row-major.
    pub shape: Vec<u64>,
    /// Bytes in the output.
    pub bytes: u64,
    /// torch's name of what the checkpoint has.
    pub element: &'static str,
    /// Names in the checkpoint that are the same tensor.
    pub aliases: Vec<String>,
    pub(super) place: usize,
    pub(super) cast: Option<Cast>,
}

/// A file as it will be written.
#[derive(Clone, Debug)]
pub struct PlannedFile {
    /// Where.
    pub path: PathBuf,
    /// The places of its tensors among those of the conversion.
    pub tensors: Vec<usize>,
    pub(super) layout: Layout,
}

impl PlannedFile {
    /// Bytes of the whole file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.layout.file_bytes()
    }
}

impl Conversion {
    /// Plans the conversion of an open checkpoint.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where a selected tensor has no dtype in the
    /// format; [`Format`](crate::ErrorKind::Format) where two get one name;
    /// [`Usage`](crate::ErrorKind::Usage) where the options make no sense.
    pub fn plan(pickled: Pickled, output: &Path, options: &ConvertOptions) -> Result<Self, Error> {
        let mut conversion = Self::select(pickled, output, options)?;
        conversion.lay_out()?;
        Ok(conversion)
    }

    /// Which tensors under which names, and no files yet.
    pub(super) fn select(pickled: Pickled, output: &Path, options: &ConvertOptions) -> Result<Self, Error> {
        let names = Names::new(options)?;
        let refused = |refusal| Error::refused(pickled.path(), refusal);
        let mut tensors: Vec<PlannedTensor> = Vec::new();
        let mut left_out = Vec::new();
        let mut aliases = Vec::new();
        let owners = owners(&pickled, &names, options);
        for (place, found) in pickled.tensors.iter().enumerate() {
            if !names.takes(&found.name) {
                left_out.push(found.name.clone());
                continue;
            }
            if let Some(owner) = owners.get(&place).and_then(|owner| pickled.tensors.get(*owner)) {
                aliases.push((names.renamed(&found.name), names.renamed(&owner.name)));
                continue;
            }
            let dtype = options.dtype.or(pickled.dtype);
            tensors.push(planned(found, place, &names, dtype).map_err(refused)?);
        }
        let mut shared: HashMap<usize, Vec<String>> = HashMap::new();
        for (alias, owner) in &owners {
            let name = pickled.tensors.get(*alias).map(|tensor| tensor.name.clone());
            shared.entry(*owner).or_default().extend(name);
        }
        for tensor in &mut tensors {
            tensor.aliases = shared.remove(&tensor.place).unwrap_or_default();
            tensor.aliases.sort();
        }
        let mut all: Vec<&str> = tensors
            .iter()
            .map(|tensor| tensor.name.as_str())
            .chain(aliases.iter().map(|(alias, _)| alias.as_str()))
            .collect();
        all.sort_unstable();
        if let Some(pair) = all.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(refused(Refusal::Collision { name: pair[0].to_owned() }));
        }
        Ok(Self {
            tensors,
            files: Vec::new(),
            aliases: aliases.into_iter().collect(),
            left_out,
            index: None,
            output: target(output),
            options: options.clone(),
            pickled,
        })
    }

    /// What the checkpoint has of its own, and what was asked for.
    pub(super) fn metadata(&self) -> BTreeMap<String, String> {
        let mut metadata = self.pickled.metadata.clone();
        metadata.extend(self.options.metadata.clone());
        metadata
    }

    fn lay_out(&mut self) -> Result<(), Error> {
        let sizes: Vec<u64> = self.tensors.iter().map(|tensor| tensor.bytes).collect();
        let shards = match self.options.max_shard_bytes {
            Some(most) => split_into_shards(&sizes, most),
            None => vec![(0..self.tensors.len()).collect()],
        };
        let whole = self.output.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Shards carry the format alone; the index carries the rest.
        let mut metadata = self.metadata();
        let format = if self.pickled.torch { "pt" } else { "np" };
        metadata.entry("format".to_owned()).or_insert_with(|| format.to_owned());
        if shards.len() == 1 {
            metadata.extend(self.aliases.clone());
        } else {
            metadata.retain(|key, _| key == "format");
            self.index = Some(self.output.with_file_name(format!("{whole}.index.json")));
        }
        let metadata: Metadata = metadata.into_iter().collect();
        for (number, places) in shards.iter().enumerate() {
            let path = self.output.with_file_name(shard_name(&whole, number.saturating_add(1), shards.len()));
            let specs = places
                .iter()
                .filter_map(|place| self.tensors.get(*place))
                .map(|tensor| TensorSpec::new(tensor.name.clone(), tensor.dtype, tensor.shape.clone()));
            let layout = Layout::new(specs, Some(&metadata), &LayoutOptions::default())
                .map_err(|e| tensafe_io::Error::format(Some(&path), e))?;
            self.files.push(PlannedFile { path, tensors: places.clone(), layout });
        }
        Ok(())
    }

    /// Whether there is anything to write.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) where there is no tensor, or none is selected.
    pub fn has_tensors(&self) -> Result<(), Error> {
        if self.tensors.is_empty() {
            return Err(Error::refused(self.pickled.path(), Refusal::NoTensors));
        }
        Ok(())
    }

    /// The tensors, in the order of the checkpoint.
    #[must_use]
    pub fn tensors(&self) -> &[PlannedTensor] {
        &self.tensors
    }

    /// The files, in the order of their names.
    #[must_use]
    pub fn files(&self) -> &[PlannedFile] {
        &self.files
    }

    /// The index of the files, where there are several.
    #[must_use]
    pub fn index(&self) -> Option<&Path> {
        self.index.as_deref()
    }

    /// From names that share a tensor to the name that it is written under.
    #[must_use]
    pub fn aliases(&self) -> &BTreeMap<String, String> {
        &self.aliases
    }

    /// Names of the tensors that were not selected.
    #[must_use]
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> &Pickled {
        &self.pickled
    }

    /// Where it is written: the file, or what shards and their index are named after.
    #[must_use]
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |all, file| all.saturating_add(file.bytes()))
    }

    pub(super) fn gather(&self, tensor: &PlannedTensor) -> Option<Gather<'_>> {
        let found = self.pickled.tensors.get(tensor.place)?;
        Some(Gather::new(found, self.pickled.storages.get(found.storage)?, tensor.cast))
    }
}

fn planned(
    found: &FoundTensor,
    place: usize,
    names: &Names,
    dtype: Option<Dtype>,
) -> Result<PlannedTensor, Refusal> {
    let no_dtype = || Refusal::Element { path: found.name.clone(), element: found.element };
    let cast = dtype.and_then(|dtype| Cast::new(found.element, dtype));
    let (dtype, packed) = dtype_of(cast.map_or(found.element, Cast::to)).ok_or_else(no_dtype)?;
    let mut shape = found.shape.clone();
    if packed > 1 {
        // Two values to an element: the last dimension counts values.
        let last = shape.last_mut().ok_or_else(no_dtype)?;
        *last = last.checked_mul(packed).ok_or_else(|| Refusal::Overflow { path: found.name.clone() })?;
    }
    let name = names.renamed(&found.name);
    let bytes = tensor_bytes(&name, dtype, &shape);
    let bytes = bytes.map_err(|_| Refusal::Overflow { path: found.name.clone() })?;
    let element = found.element.name();
    Ok(PlannedTensor {
        name,
        found: found.name.clone(),
        dtype,
        shape,
        bytes,
        element,
        aliases: Vec::new(),
        place,
        cast,
    })
}

/// For each selected tensor that is the very same as another, the place of the other: the one whose
/// name sorts first, as the reference chooses.
fn owners(pickled: &Pickled, names: &Names, options: &ConvertOptions) -> HashMap<usize, usize> {
    let mut owners = HashMap::new();
    if options.duplicate {
        return owners;
    }
    let mut same: HashMap<_, Vec<usize>> = HashMap::new();
    for (place, tensor) in pickled.tensors.iter().enumerate() {
        if !names.takes(&tensor.name) || tensor.shape.contains(&0) {
            continue;
        }
        let FoundTensor { element, shape, strides, offset, storage, conjugate, negative, .. } = tensor;
        let view = (storage, offset, shape, strides, element, conjugate, negative);
        same.entry(view).or_default().push(place);
    }
    for places in same.values().filter(|places| places.len() > 1) {
        let name = |place: &usize| pickled.tensors.get(*place).map(|tensor| tensor.name.as_str());
        let Some(owner) = places.iter().copied().min_by_key(name) else { continue };
        // A name that means something else in the metadata cannot stand there for an alias.
        let reserved = |place: &usize| {
            let name = name(place).map(|name| names.renamed(name)).unwrap_or_default();
            matches!(name.as_str(), "format" | "total_size")
                || options.metadata.contains_key(&name)
                || pickled.metadata.contains_key(&name)
        };
        let others = places.iter().filter(|place| **place != owner && !reserved(place));
        owners.extend(others.map(|place| (*place, owner)));
    }
    owners
}

/// The file that a path means: a directory, or what ends with a separator, gets the usual name.
fn target(output: &Path) -> PathBuf {
    let text = output.as_os_str().as_encoded_bytes();
    let ends = text.last().is_some_and(|last| std::path::is_separator(char::from(*last)));
    if ends || output.is_dir() { output.join(FILE_NAME) } else { output.to_owned() }
}
