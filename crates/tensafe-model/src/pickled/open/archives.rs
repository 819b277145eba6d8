//! Zip and tar archives: torch's own, arrays of numpy, and archives of checkpoints.

use std::sync::Arc;

use tensafe_container::{Kind, Tar, TarKind, Window, Zip, detect};
use tensafe_io::Source;
use tensafe_pickle::{Dialect, evaluate_stream, numbered_storages, numbered_tensors};

use super::{ENDINGS, Opening};
use crate::{
    Error,
    pickled::{
        Refusal,
        flatten::Result,
        storages::{Storages, checked},
        stream::SourceStream,
    },
};

impl Opening<'_> {
    pub(super) fn zip(
        &mut self,
        source: &Arc<dyn Source>,
        prefix: &[String],
        member: &str,
        layer: usize,
    ) -> Result<()> {
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

    pub(super) fn tar(
        &mut self,
        source: &Arc<dyn Source>,
        prefix: &[String],
        member: &str,
        layer: usize,
    ) -> Result<()> {
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
}
