//! The file of a model's states: what its parameters are called, and their shapes.

use std::path::Path;

use serde_json::Value as Json;

use super::{
    Result, Whole, mismatch,
    rank::{RankFile, numel, same_element},
};
use crate::{Error, PickledOptions, pickled::Refusal};

/// Names and shapes, in the order in which the parameters lie in a flat tensor.
pub(super) type Shapes = Vec<(String, Vec<u64>)>;

/// What one `*_model_states.pt` says.
pub(super) struct ModelStates {
    pub(super) file: RankFile,
    /// The parameters of each group of the optimizer.
    pub(super) groups: Vec<Shapes>,
    /// Names of buffers.
    pub(super) buffers: Vec<String>,
    /// Parameters that the optimizer does not have.
    pub(super) frozen: Shapes,
    /// Second names, and the first.
    pub(super) shared: Vec<(String, String)>,
}

impl ModelStates {
    pub(super) fn read(path: &Path, options: &PickledOptions) -> Result<Self> {
        let file = RankFile::open(path, options)?;
        refuse_partitioned_experts(&file)?;
        let wrong = |what: &str, found: &Json, needed: &str| {
            let found = if found.is_array() || found.is_object() {
                "another container".into()
            } else {
                found.to_string()
            };
            mismatch(path, what, found, needed)
        };
        let names = file.needed(&["buffer_names"], "the names of the buffers")?;
        let texts = names.as_array().map(|names| names.iter().map(|name| name.as_str().map(str::to_owned)));
        let buffers = texts.and_then(Iterator::collect::<Option<Vec<_>>>);
        let buffers = buffers.ok_or_else(|| wrong("buffer_names", names, "a list of text"))?;
        let groups = file.needed(&["param_shapes"], "the shapes of the parameters")?;
        let listed = groups.as_array().ok_or_else(|| wrong("param_shapes", groups, "a list of dicts"))?;
        let groups =
            listed.iter().map(|group| shapes(&file, "param_shapes", group)).collect::<Result<_>>()?;
        let frozen = file.value(&["frozen_param_shapes"]);
        let frozen =
            frozen.map_or_else(|| Ok(Vec::new()), |value| shapes(&file, "frozen_param_shapes", value))?;
        let mut shared = Vec::new();
        if let Some(pairs) = file.value(&["shared_params"]) {
            for (name, owner) in pairs.as_object().ok_or_else(|| wrong("shared_params", pairs, "a dict"))? {
                let text = owner.as_str().ok_or_else(|| wrong("shared_params", owner, "a name"))?;
                shared.push((name.clone(), text.to_owned()));
            }
        }
        Ok(Self { file, groups, buffers, frozen, shared })
    }
}

/// Parameters that no optimizer has: whole in the file of rank 0, or a fragment in that of each rank.
pub(super) fn frozen(whole: &mut Whole<'_>, files: &[&RankFile], shapes: &Shapes) -> Result<()> {
    for (name, shape) in shapes {
        let key = format!("frozen_param_fragments.{name}");
        let needed = numel(shape);
        let mut left = needed;
        let mut element = None;
        let mut parts = Vec::with_capacity(files.len());
        for file in files {
            let Some(found) = file.tensor(&key) else {
                return Err(mismatch(&file.path, key, "nothing", "a tensor"));
            };
            let flat = file.flat(found)?;
            same_element(&file.path, &key, flat.element, *element.get_or_insert(flat.element))?;
            let taken = flat.count.min(left);
            parts.push(flat.cut(0, taken));
            left = left.saturating_sub(taken);
        }
        let (Some(element), 0) = (element, left) else {
            let found = format!("{} elements", needed.saturating_sub(left));
            return Err(mismatch(&whole.folder.path, key, found, format!("{needed}")));
        };
        whole.add(name, element, shape, parts)?;
    }
    Ok(())
}

fn shapes(file: &RankFile, what: &str, value: &Json) -> Result<Shapes> {
    let Some(entries) = value.as_object() else {
        return Err(mismatch(&file.path, what, "another value", "a dict of names and shapes"));
    };
    let shape =
        |(name, shape): (&String, &Json)| Ok((name.clone(), file.shape(&format!("{what}.{name}"), shape)?));
    entries.iter().map(shape).collect()
}

/// Experts that are partitioned over groups of their own: putting all ranks together would be wrong.
fn refuse_partitioned_experts(file: &RankFile) -> Result<()> {
    for key in ["ds_autoep_layers", "autoep_layers"] {
        let layers = file.value(&[key]).and_then(Json::as_array).into_iter().flatten();
        if layers.into_iter().any(|layer| layer.get("checkpoint_format") == Some(&"zero3_partitioned".into()))
        {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let why = "experts are partitioned over groups of their own, which are not put together";
            return Err(Error::refused(file.path.parent(), Refusal::Parallel { file: name, why }));
        }
    }
    Ok(())
}
