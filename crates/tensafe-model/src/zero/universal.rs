//! Universal checkpoints: each parameter whole in a folder of its own.

use std::{collections::HashMap, path::Path};

use super::{
    Result, Whole,
    folder::{Folder, names},
    mismatch,
    model::{self, ModelStates},
    rank::{RankFile, numel},
};
use crate::PickledOptions;

/// Puts the parameters of a folder together.
pub(super) fn gather(folder: &Folder, options: &PickledOptions, whole: &mut Whole<'_>) -> Result<()> {
    let files = folder.files()?;
    let Some(first) = files.model.first() else {
        return Err(mismatch(&folder.path, "*_model_states.pt", "none", "at least that of rank 0"));
    };
    let model = ModelStates::read(first, options)?;
    whole.buffers(&model)?;
    frozen(whole, &model, &files.model, options)?;
    let shapes: HashMap<&str, &[u64]> =
        model.groups.iter().flatten().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    for (name, directory) in names(&folder.path.join("zero"))? {
        let path = directory.join("fp32.pt");
        // Copies of what is frozen, buffers and second names: rounded as the model is.
        let elsewhere = whole.has(&name) || model.shared.iter().any(|(other, _)| *other == name);
        if path.is_file() && !elsewhere {
            parameter(whole, &name, &path, shapes.get(name.as_str()).copied(), options)?;
        }
    }
    if let Some(missing) = shapes.keys().find(|name| !whole.has(name)) {
        return Err(mismatch(&folder.path, format!("zero/{missing}/fp32.pt"), "nothing", "a parameter"));
    }
    whole.shared(&model)?;
    whole.keep(model);
    Ok(())
}

/// One `zero/NAME/fp32.pt`: `{"param": tensor, …}` of stages 1 and 2, of stage 3 a flat tensor.
fn parameter(
    whole: &mut Whole<'_>,
    name: &str,
    path: &Path,
    shape: Option<&[u64]>,
    options: &PickledOptions,
) -> Result<()> {
    let mut file = RankFile::open(path, options)?;
    let Some(found) = file.tensor("param").or_else(|| file.tensor("tensor")) else {
        return Err(mismatch(path, "param", "nothing", "a tensor"));
    };
    let flat = file.flat(found)?;
    let shape = shape.unwrap_or(&found.shape).to_vec();
    if numel(&shape) != flat.count {
        let found = format!("{} elements", flat.count);
        return Err(mismatch(path, name, found, format!("{}, as in param_shapes", numel(&shape))));
    }
    whole.add(name, flat.element, &shape, vec![flat.cut(0, flat.count)])?;
    whole.pickled.symbols.append(&mut file.pickled.symbols);
    Ok(())
}

/// Whole in the file of all ranks, or a fragment in the file of each.
fn frozen(
    whole: &mut Whole<'_>,
    model: &ModelStates,
    paths: &[std::path::PathBuf],
    options: &PickledOptions,
) -> Result<()> {
    if model.frozen.is_empty() {
        return Ok(());
    }
    let others =
        paths.iter().skip(1).map(|path| RankFile::open(path, options)).collect::<Result<Vec<_>>>()?;
    let files: Vec<&RankFile> = std::iter::once(&model.file).chain(&others).collect();
    model::frozen(whole, &files, &model.frozen)
}
