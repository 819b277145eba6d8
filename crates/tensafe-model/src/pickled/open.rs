//! From a path or bytes to a checkpoint: which container it is, and where in it the pickle stands.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tensafe_container::{Kind, Npy, Tar, TarKind, Window, Zip, decompress, detect};
use tensafe_format::{ParseOptions, ShardIndex};
use tensafe_io::{Buffer, FileSource, MemorySource, Source, TensorFile};
use tensafe_pickle::{
    Bytes, Dialect, LegacyStream, Pickle, evaluate_stream, known_symbol, numbered_storages, numbered_tensors,
};

use super::{
    FoundTensor, Pickled, PickledOptions, Placed, Refusal, SeenSymbol,
    elements::element_of,
    flatten::{Result, Walk},
    leaves::{name_of, npy_tensor},
    storages::{Storages, checked},
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
}

impl<'o> Opening<'o> {
    fn new(options: &'o PickledOptions) -> Self {
        Self { options, pickled: Pickled::default(), directory: None }
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
            return Ok(());
        }
        self.file(path)
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        let source: Arc<dyn Source> = Arc::new(FileSource::open(path)?);
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
        walk.root(prefix)
    }

    // Archives.

    fn zip(&mut self, source: &Arc<dyn Source>, prefix: &[String], member: &str, layer: usize) -> Result<()> {
        let failed = |e| Error::container(source.path(), e);
        let zip = Zip::open(Arc::clone(source), &self.options.container_limits).map_err(failed)?;
        // torch's reader takes the folder of the first member for that of all.
        let mut roots: Vec<&str> = zip
            .members()
            .iter()
            .filter_map(|member| member.name().strip_suffix("data.pkl"))
            .filter(|root| root.is_empty() || root.ends_with('/') && root.matches('/').count() == 1)
            .collect();
        roots.dedup();
        match roots[..] {
            [] => {}
            [root] => {
                let root = root.to_owned();
                return self.torch(source, &zip, &root, prefix, member);
            }
            _ => {
                let names = roots.iter().map(|root| format!("{root}data.pkl")).collect();
                return self.refuse(source, Refusal::Roots { names });
            }
        }
        let files: Vec<_> = zip.members().iter().filter(|member| !member.is_directory()).collect();
        let arrays = files.iter().all(|file| file.name().ends_with(".npy"));
        let single = files.len() == 1 && !arrays;
        for file in files {
            checked(&zip, file.name(), source.as_ref())?;
            let inner = zip.read(file).map_err(failed)?;
            self.member(&inner, file.name(), prefix, member, layer, single)?;
        }
        Ok(())
    }

    /// A member of an archive that is a checkpoint of its own, under its name without the ending.
    fn member(
        &mut self,
        inner: &Arc<dyn Source>,
        name: &str,
        prefix: &[String],
        member: &str,
        layer: usize,
        single: bool,
    ) -> Result<()> {
        let mut path = prefix.to_vec();
        if !single {
            let ending = |ending: &&str| name.strip_suffix(*ending).is_some_and(|stem| stem.ends_with('.'));
            let known = ENDINGS.iter().find(|ending_of| ending(ending_of));
            let stem = known.and_then(|ending| name.strip_suffix(*ending)?.strip_suffix('.')).unwrap_or(name);
            path.push(stem.to_owned());
        }
        let at = if member.is_empty() { name.to_owned() } else { format!("{member}!{name}") };
        self.source(inner, &path, &at, layer.saturating_add(1))
    }

    /// The archive that torch writes since 1.6: `ROOT/data.pkl`, `ROOT/data/KEY`.
    fn torch(
        &mut self,
        source: &Arc<dyn Source>,
        zip: &Zip,
        root: &str,
        prefix: &[String],
        member: &str,
    ) -> Result<()> {
        let failed = |e| Error::container(source.path(), e);
        let name = format!("{root}data.pkl");
        checked(zip, &name, source.as_ref())?;
        let Some(found) = zip.find(&name) else { return Ok(()) };
        let inner = zip.read(found).map_err(failed)?;
        let code = format!("{root}code/");
        let script = zip.find(&format!("{root}constants.pkl")).is_some()
            || zip.members().iter().any(|member| member.name().starts_with(&code));
        let mut stream = SourceStream::new(Arc::clone(&inner));
        let pickle = evaluate_stream(&mut stream, 0, Dialect::Plain, &self.options.limits);
        self.met(&mut stream)?;
        self.whole(&inner, &pickle)?;
        self.trailing(&inner, pickle.range().end)?;
        let at = if member.is_empty() { name } else { format!("{member}!{name}") };
        self.judge(&inner, &pickle, &at, script)?;
        self.beside(source, zip, root, member, script)?;
        if script {
            self.pickled.notes.push("the code of a TorchScript archive is left out".to_owned());
        }
        let big_endian = self.byte_order(source, zip, root)?;
        let folder = format!("{root}data/");
        self.pickled.torch = true;
        self.walk(&inner, &pickle, Storages::Zip { zip, folder: &folder, big_endian }, script, prefix)
    }

    /// The members that are no part of the checkpoint are left out; pickles among them are judged all
    /// the same, because other readers look for them.
    fn beside(
        &mut self,
        source: &Arc<dyn Source>,
        zip: &Zip,
        root: &str,
        member: &str,
        script: bool,
    ) -> Result<()> {
        const OWN: [&str; 5] = ["data.pkl", "version", "byteorder", ".format_version", ".storage_alignment"];
        const FOLDERS: [&str; 4] = ["data/", ".data/", "code/", "constants/"];
        let failed = |e| Error::container(source.path(), e);
        for other in zip.members().iter().filter(|member| !member.is_directory()) {
            let name = other.name().strip_prefix(root);
            if name.is_some_and(|name| {
                OWN.contains(&name) || FOLDERS.iter().any(|folder| name.starts_with(folder))
            }) {
                continue;
            }
            let inner = zip.read(other).map_err(failed)?;
            if detect(inner.as_ref()).map_err(failed)? == Kind::Pickle {
                let mut stream = SourceStream::new(Arc::clone(&inner));
                let pickle = evaluate_stream(&mut stream, 0, Dialect::Plain, &self.options.limits);
                self.met(&mut stream)?;
                let at = if member.is_empty() { String::new() } else { format!("{member}!") };
                self.judge(&inner, &pickle, &format!("{at}{}", other.name()), script)?;
            }
            if !script {
                self.pickled.notes.push(format!("member `{}` is left out", other.name()));
            }
        }
        Ok(())
    }

    fn byte_order(&self, source: &Arc<dyn Source>, zip: &Zip, root: &str) -> Result<bool> {
        let Some(member) = zip.find(&format!("{root}byteorder")) else { return Ok(false) };
        checked(zip, member.name(), source.as_ref())?;
        let inner = zip.read(member).map_err(|e| Error::container(source.path(), e))?;
        let mut text = vec![0; usize::try_from(inner.len().min(16)).unwrap_or(0)];
        inner.read_at(0, &mut text)?;
        match text.as_slice() {
            b"little" => Ok(false),
            b"big" => Ok(true),
            other => {
                let why =
                    format!("the member `byteorder` says {}", String::from_utf8_lossy(other).escape_debug());
                self.refuse(source, Refusal::Archive { why })
            }
        }
    }

    fn tar(&mut self, source: &Arc<dyn Source>, prefix: &[String], member: &str, layer: usize) -> Result<()> {
        let failed = |e| Error::container(source.path(), e);
        let tar = Tar::open(Arc::clone(source), &self.options.container_limits).map_err(failed)?;
        let files: Vec<_> = tar.entries().iter().filter(|entry| entry.kind() == TarKind::File).collect();
        let named = |name: &str| {
            files
                .iter()
                .find(|entry| entry.name().trim_start_matches("./") == name)
                .map(|entry| entry.range())
        };
        let window = |range| -> Result<Arc<dyn Source>> {
            Ok(Arc::new(Window::new(Arc::clone(source), range).map_err(failed)?))
        };
        if let (Some(pickle), Some(storages), Some(tensors), Some(info)) =
            (named("pickle"), named("storages"), named("tensors"), named("sys_info"))
        {
            let info = window(info)?;
            let mut stream = SourceStream::new(Arc::clone(&info));
            let sizes = evaluate_stream(&mut stream, 0, Dialect::Plain, &self.options.limits);
            self.met(&mut stream)?;
            self.judge(&info, &sizes, "sys_info", false)?;
            return self.numbered(&window(pickle)?, &window(storages)?, &window(tensors)?, prefix, member);
        }
        if let Some(flaw) = tar.flaws().first() {
            let why = flaw.to_string();
            return self.refuse(source, Refusal::Archive { why });
        }
        let single = files.len() == 1;
        for entry in files {
            self.member(&window(entry.range())?, entry.name(), prefix, member, layer, single)?;
        }
        Ok(())
    }

    /// The archive that torch wrote before 0.1.10.
    fn numbered(
        &mut self,
        pickle: &Arc<dyn Source>,
        storages: &Arc<dyn Source>,
        tensors: &Arc<dyn Source>,
        prefix: &[String],
        member: &str,
    ) -> Result<()> {
        let limits = &self.options.limits;
        let refused = |source: &Arc<dyn Source>, e| Error::refused(source.path(), Refusal::Pickle(e));
        let (parts, of_storages) = numbered_storages(SourceStream::new(Arc::clone(storages)), limits)
            .map_err(|e| refused(storages, e))?;
        let (walks, of_tensors) = numbered_tensors(SourceStream::new(Arc::clone(tensors)), limits)
            .map_err(|e| refused(tensors, e))?;
        for small in of_storages.iter().chain(&of_tensors) {
            self.judge(pickle, small, member, false)?;
        }
        let mut stream = SourceStream::new(Arc::clone(pickle));
        let object = evaluate_stream(&mut stream, 0, Dialect::Plain, limits);
        self.met(&mut stream)?;
        self.whole(pickle, &object)?;
        self.trailing(pickle, object.range().end)?;
        self.judge(pickle, &object, member, false)?;
        self.pickled.torch = true;
        let storages = Storages::Numbered { source: storages, storages: &parts, tensors: &walks };
        self.walk(pickle, &object, storages, false, prefix)
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
