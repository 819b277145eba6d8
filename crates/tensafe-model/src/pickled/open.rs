//! From a path or bytes to a checkpoint: which container it is, and where in it the pickle stands.

mod archives;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tensafe_container::{Kind, Npy, Window, decompress, detect};
use tensafe_format::{ParseOptions, ShardIndex};
use tensafe_io::{Buffer, MemorySource, Source, TensorFile};
use tensafe_pickle::{Bytes, Dialect, LegacyStream, Pickle, evaluate_stream, known_symbol};

use super::{
    FoundTensor, Pickled, PickledOptions, Placed, Refusal, SeenSymbol,
    elements::element_of,
    flatten::{Result, Walk},
    leaves::{name_of, npy_tensor},
    storages::Storages,
    stream::SourceStream,
};
use crate::Error;

/// Archives within archives, compressed streams within them.
const MOST_LAYERS: usize = 4;

/// Symbols that an error names; the others are counted.
const NAMED_SYMBOLS: usize = 8;

/// Indices of shards that torch's world writes, and the files that stand alone, in the order in
/// which loaders look for them.
const INDICES: [&str; 2] = ["pytorch_model.bin.index.json", "diffusion_pytorch_model.bin.index.json"];
const FILES: [&str; 6] = [
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
    "adapter_model.bin",
    "pytorch_lora_weights.bin",
    "consolidated.00.pth",
    "model.pt",
];

/// Ends of names that checkpoints have.
const ENDINGS: [&str; 9] = ["bin", "pt", "pth", "ckpt", "pkl", "pickle", "joblib", "npz", "npy"];

pub(super) fn at_path(path: &Path, options: &PickledOptions) -> Result<Pickled> {
    let mut opening = Opening::new(options);
    let metadata = fs::metadata(path).map_err(|e| tensafe_io::Error::from_os("open", path, e))?;
    if metadata.is_dir() {
        for file in files_of(path)? {
            opening.set(&file)?;
        }
    } else {
        opening.set(path)?;
    }
    opening.done(path)
}

pub(super) fn source(source: Arc<dyn Source>, options: &PickledOptions) -> Result<Pickled> {
    let path = source.path().map(PathBuf::from);
    let mut opening = Opening::new(options);
    opening.pickled.watch(&source)?;
    opening.source(&source, &[], "", 0)?;
    opening.done(path.as_deref().unwrap_or_else(|| Path::new("")))
}

/// The files of a directory that are its checkpoint.
fn files_of(directory: &Path) -> Result<Vec<PathBuf>> {
    for name in INDICES.iter().chain(&FILES) {
        let path = directory.join(name);
        if path.is_file() {
            return Ok(vec![path]);
        }
    }
    let failed = |e| Error::from(tensafe_io::Error::from_os("list", directory, e));
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if path.is_file() && ENDINGS.contains(&ending) {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(Error::refused(Some(directory), Refusal::Nothing));
    }
    Ok(found)
}

/// Bytes of a pickle as a source of their own.
pub(super) fn bytes_source(stream: &Arc<dyn Source>, bytes: &Bytes<'_>) -> Result<Arc<dyn Source>> {
    Ok(match bytes {
        Bytes::Far(range) => {
            let window = Window::new(Arc::clone(stream), range.clone());
            Arc::new(window.map_err(|e| Error::container(stream.path(), e))?)
        }
        Bytes::Near(bytes) => Arc::new(MemorySource::new(Buffer::from_owner(bytes.to_vec()))),
    })
}

/// Refuses a pickle that names what is not known, wherever it stands.
pub(super) fn refuse_symbols(path: Option<&Path>, pickle: &Pickle<'_>, script: bool) -> Result<()> {
    let mut names: Vec<String> = Vec::new();
    for symbol in pickle.unknown_symbols() {
        if script && symbol.module.starts_with("__torch__.") {
            continue;
        }
        let name = symbol.to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    let more = names.len().saturating_sub(NAMED_SYMBOLS);
    names.truncate(NAMED_SYMBOLS);
    Err(Error::refused(path, Refusal::Symbols { names, more }))
}

struct Opening<'o> {
    options: &'o PickledOptions,
    pickled: Pickled,
    /// Where the file stands that is being read, for files that it names.
    directory: Option<PathBuf>,
    /// How many containers the bytes that are read lie in.
    layer: usize,
}

impl<'o> Opening<'o> {
    fn new(options: &'o PickledOptions) -> Self {
        Self { options, pickled: Pickled::default(), directory: None, layer: 0 }
    }

    fn done(self, path: &Path) -> Result<Pickled> {
        let mut names: Vec<&str> = self.pickled.names().collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let name = pair[0].to_owned();
            return Err(Error::refused(Some(path), Refusal::Collision { name }));
        }
        Ok(self.pickled)
    }

    /// A file, or the files that an index names.
    fn set(&mut self, path: &Path) -> Result<()> {
        if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".index.json")) {
            let text = fs::read(path).map_err(|e| tensafe_io::Error::from_os("read", path, e))?;
            let index = ShardIndex::parse(&text).map_err(|e| Error::index(path, e))?;
            let directory = path.parent().unwrap_or_else(|| Path::new(""));
            for file in index.files() {
                self.file(&directory.join(file))?;
            }
            let there: std::collections::HashSet<&str> = self.pickled.names().collect();
            let missing = index.weight_map.keys().find(|name| !there.contains(name.as_str()));
            if let Some(name) = missing {
                let file = index.weight_map.get(name).map(String::as_str).unwrap_or_default();
                return Err(Error::not_in_shard(name, &directory.join(file)));
            }
            // It is that of one shard.
            self.pickled.structure = None;
            return Ok(());
        }
        self.file(path)
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        let source = self.pickled.open_file(path)?;
        self.directory = Some(path.parent().unwrap_or_else(|| Path::new("")).to_owned());
        self.source(&source, &[], "", 0).map_err(|e| e.in_file(path))
    }

    fn refuse<T>(&self, source: &Arc<dyn Source>, refusal: Refusal) -> Result<T> {
        Err(Error::refused(source.path(), refusal))
    }

    /// Bytes of any kind; `prefix` leads to what they hold, `member` is where they stand.
    fn source(
        &mut self,
        source: &Arc<dyn Source>,
        prefix: &[String],
        member: &str,
        layer: usize,
    ) -> Result<()> {
        let failed = |e| Error::container(source.path(), e);
        self.layer = layer;
        if layer > MOST_LAYERS {
            let path = prefix.join(".");
            return self.refuse(source, Refusal::Depth { path, limit: MOST_LAYERS });
        }
        let limits = &self.options.container_limits;
        match detect(source.as_ref()).map_err(failed)? {
            Kind::Zip => self.zip(source, prefix, member, layer),
            Kind::Tar => self.tar(source, prefix, member, layer),
            Kind::Npy => self.npy(source, prefix),
            kind if kind.is_compressed() => {
                let inner = decompress(Arc::clone(source), kind, limits).map_err(failed)?;
                // Where it came from names it still: side files and errors need the path.
                self.source(&inner, prefix, member, layer.saturating_add(1))
            }
            Kind::Safetensors => self.safetensors(source, prefix),
            Kind::Pickle | Kind::Unknown => self.pickle(source, prefix, member),
            other => self.refuse(source, Refusal::Kind { name: other.name() }),
        }
    }

    // Pickles.

    /// A pickle that fills its source: torch's file of five pickles, or one alone.
    fn pickle(&mut self, source: &Arc<dyn Source>, prefix: &[String], member: &str) -> Result<()> {
        let limits = &self.options.limits;
        let mut stream = SourceStream::new(Arc::clone(source));
        if LegacyStream::is_one(&mut stream).unwrap_or(false) {
            let legacy = LegacyStream::read(&mut stream, limits);
            self.met(&mut stream)?;
            if let Some(error) = legacy.error() {
                return self.refuse(source, Refusal::Pickle(error.clone()));
            }
            self.trailing(source, legacy.end())?;
            for (place, pickle) in legacy.pickles().iter().enumerate() {
                self.whole(source, pickle)?;
                self.judge(source, pickle, &format!("{member}#{place}"), false)?;
            }
            self.pickled.torch = true;
            let Some(object) = legacy.object() else { return Ok(()) };
            return self.walk(source, object, Storages::Legacy(&legacy), false, prefix);
        }
        let mut pickle = evaluate_stream(&mut stream, 0, Dialect::Plain, limits);
        // joblib's record is what tells its files from others, and it may break a plain reader.
        let joblib = pickle.symbols().iter().any(|used| {
            pickle.symbol(used.value).is_some_and(|symbol| {
                (&*symbol.module, &*symbol.name) == ("joblib.numpy_pickle", "NumpyArrayWrapper")
            })
        });
        if joblib {
            pickle = evaluate_stream(&mut stream, 0, Dialect::Joblib, limits);
        }
        self.met(&mut stream)?;
        self.whole(source, &pickle)?;
        self.trailing(source, pickle.range().end)?;
        self.judge(source, &pickle, member, false)?;
        self.walk(source, &pickle, Storages::None, false, prefix)
    }

    /// What reading the source met: it has better words for it than the pickle.
    fn met(&self, stream: &mut SourceStream) -> Result<()> {
        stream.failure().map_or(Ok(()), |error| Err(error.into()))
    }

    /// A pickle that came to its STOP and left nothing.
    fn whole(&self, source: &Arc<dyn Source>, pickle: &Pickle<'_>) -> Result<()> {
        if let Some(error) = pickle.error() {
            // What it named before it broke is worth more than how it broke.
            if !self.options.salvage {
                refuse_symbols(source.path(), pickle, false)?;
            }
            return self.refuse(source, Refusal::Pickle(error.clone()));
        }
        match pickle.leftover() {
            0 => Ok(()),
            count => self.refuse(source, Refusal::Leftover { count }),
        }
    }

    fn trailing(&self, source: &Arc<dyn Source>, end: u64) -> Result<()> {
        match source.len().saturating_sub(end) {
            0 => Ok(()),
            bytes => self.refuse(source, Refusal::Trailing { offset: end, bytes }),
        }
    }

    /// Notes what a pickle names, and refuses what is not known.
    fn judge(
        &mut self,
        source: &Arc<dyn Source>,
        pickle: &Pickle<'_>,
        member: &str,
        script: bool,
    ) -> Result<()> {
        if !self.options.salvage {
            refuse_symbols(source.path(), pickle, script)?;
        }
        for used in pickle.symbols() {
            if let Some(symbol) = pickle.symbol(used.value) {
                self.pickled.symbols.push(SeenSymbol {
                    member: member.to_owned(),
                    offset: used.offset,
                    symbol: symbol.to_string(),
                    known: known_symbol(&symbol.module, &symbol.name),
                });
            }
        }
        Ok(())
    }

    fn walk(
        &mut self,
        source: &Arc<dyn Source>,
        pickle: &Pickle<'_>,
        storages: Storages<'_>,
        script: bool,
        prefix: &[String],
    ) -> Result<()> {
        let torch = pickle.symbols().iter().filter_map(|used| pickle.symbol(used.value));
        self.pickled.torch |= torch.clone().any(|symbol| symbol.module.split('.').next() == Some("torch"));
        let mut walk = Walk {
            pickle,
            stream: Arc::clone(source),
            storages,
            directory: self.directory.as_deref(),
            options: self.options,
            script,
            into: &mut self.pickled,
            known: HashMap::new(),
            visited: 0,
        };
        walk.root(prefix)?;
        // torch reads no file within another, and no archive without a folder.
        let torch = match storages {
            Storages::Zip { folder, .. } => folder != "data/",
            Storages::Legacy(_) => true,
            Storages::None | Storages::Numbered { .. } => false,
        };
        if self.options.structure && torch && self.layer == 0 && !script {
            let structure = walk.structure()?;
            self.pickled.structure = structure;
        }
        Ok(())
    }

    // Files of tensors.

    fn npy(&mut self, source: &Arc<dyn Source>, prefix: &[String]) -> Result<()> {
        let npy = Npy::read(source.as_ref(), 0, &self.options.container_limits)
            .map_err(|e| Error::container(source.path(), e))?;
        match npy_tensor(Arc::clone(source), &npy, name_of(prefix)) {
            Ok((mut tensor, placed)) => {
                self.trailing(source, placed.range.end)?;
                self.pickled.storages.push(placed);
                tensor.storage = self.pickled.storages.len().saturating_sub(1);
                self.pickled.tensors.push(tensor);
                Ok(())
            }
            Err(refusal @ Refusal::Array { .. }) if self.options.salvage => {
                self.pickled.notes.push(refusal.to_string());
                Ok(())
            }
            Err(refusal) => self.refuse(source, refusal),
        }
    }

    /// A file that is what others become: its tensors are taken as they are.
    fn safetensors(&mut self, source: &Arc<dyn Source>, prefix: &[String]) -> Result<()> {
        let file = TensorFile::from_source(Arc::clone(source), &ParseOptions::default())?;
        let header = file.header();
        if let Some(metadata) = header.metadata() {
            self.pickled.metadata.extend(metadata.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        for info in header.tensors() {
            let mut path = prefix.to_vec();
            path.push(info.name().to_owned());
            let name = path.join(".");
            let Some(element) = element_of(info.dtype()) else {
                let number = info.dtype().name().to_owned();
                let refusal = Refusal::Array { path: name, number };
                if self.options.salvage {
                    self.pickled.notes.push(refusal.to_string());
                    continue;
                }
                return self.refuse(source, refusal);
            };
            let mut strides = vec![1i64; info.shape().len()];
            for dimension in (1..strides.len()).rev() {
                let length = i64::try_from(info.shape()[dimension]).unwrap_or(i64::MAX);
                strides[dimension - 1] = strides[dimension].saturating_mul(length.max(1));
            }
            let range = header.file_range(&info);
            self.pickled.storages.push(Placed { source: Arc::clone(source), range, big_endian: false });
            self.pickled.tensors.push(FoundTensor {
                name,
                element,
                shape: info.shape().to_vec(),
                strides,
                offset: 0,
                storage: self.pickled.storages.len().saturating_sub(1),
                conjugate: false,
                negative: false,
            });
        }
        self.pickled.torch = true;
        Ok(())
    }
}
