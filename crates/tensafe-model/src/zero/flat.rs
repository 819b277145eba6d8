//! The parts of ZeRO's ranks, and which elements of them are which parameter's.
//!
//! In stages 1 and 2, the parts of a group are one flat tensor, cut among the ranks; parameters
//! follow each other in it. In stage 3 each parameter is cut among the ranks, in parts of equal
//! length of which the last is padded, and the parts of a rank follow each other.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::{
    Result, Whole,
    folder::Folder,
    mismatch,
    model::{self, ModelStates},
    parts::Part,
    rank::{Flat, RankFile, numel, same_element},
};
use crate::{PickledOptions, pickled::SeenSymbol};

const STATE: &str = "optimizer_state_dict";

/// What one `*_optim_states.pt` says.
struct Partition {
    path: PathBuf,
    stage: u64,
    world: u64,
    /// The flat tensors of this rank: one of each group.
    groups: Vec<Flat>,
    /// Elements that follow each parameter of each group and are nobody's.
    paddings: Option<Vec<Vec<u64>>>,
    symbols: Vec<SeenSymbol>,
}

impl Partition {
    fn read(path: &Path, options: &PickledOptions) -> Result<Self> {
        let file = RankFile::open(path, options)?;
        let stage = file.needed(&[STATE, "zero_stage"], "1, 2 or 3")?;
        let stage = file.number("zero_stage", stage)?;
        let key = match stage {
            0..=2 => "single_partition_of_fp32_groups",
            3 => "fp32_flat_groups",
            _ => return Err(mismatch(path, "zero_stage", stage, "1, 2 or 3")),
        };
        let count = file.needed(&[STATE, "partition_count"], "the number of ranks")?;
        // Groups of parameters may be cut among fewer ranks; the most is the world.
        let counts = count.as_array().cloned().unwrap_or_else(|| vec![count.clone()]);
        let counts = counts.iter().map(|count| file.number("partition_count", count));
        let world = counts.collect::<Result<Vec<u64>>>()?.into_iter().max().unwrap_or(0);
        let mut groups = Vec::new();
        while let Some(found) = file.tensor(&format!("{STATE}.{key}.{}", groups.len())) {
            if found.shape.len() != 1 {
                let found_as = format!("{} dimensions", found.shape.len());
                return Err(mismatch(path, &*found.name, found_as, "one"));
            }
            groups.push(file.flat(found)?);
        }
        let paddings = file.value(&[STATE, "param_alignment_paddings"]).map(|value| paddings(&file, value));
        let paddings = paddings.transpose()?;
        Ok(Self { path: path.to_owned(), stage, world, groups, paddings, symbols: file.pickled.symbols })
    }
}

fn paddings(file: &RankFile, value: &Json) -> Result<Vec<Vec<u64>>> {
    let what = "param_alignment_paddings";
    let wrong = || mismatch(&file.path, what, "another value", "lists of numbers");
    let numbers = |group: &Json| {
        let group = group.as_array().ok_or_else(wrong)?;
        group.iter().map(|padding| file.number(what, padding)).collect()
    };
    value.as_array().ok_or_else(wrong)?.iter().map(numbers).collect()
}

/// Puts the parameters of a folder together.
pub(super) fn gather(folder: &Folder, options: &PickledOptions, whole: &mut Whole<'_>) -> Result<()> {
    let files = folder.files()?;
    let Some(first) = files.model.first() else {
        return Err(mismatch(&folder.path, "*_model_states.pt", "none", "at least that of rank 0"));
    };
    let model = ModelStates::read(first, options)?;
    let mut ranks = Vec::with_capacity(files.optim.len());
    for path in &files.optim {
        let mut rank = Partition::read(path, options)?;
        whole.pickled.symbols.append(&mut rank.symbols);
        fits(&rank, ranks.first().unwrap_or(&rank), files.optim.len())?;
        ranks.push(rank);
    }
    let stage = ranks.first().map_or(0, |rank| rank.stage);
    whole.buffers(&model)?;
    if stage < 3 {
        model::frozen(whole, &[&model.file], &model.frozen)?;
        one_after_the_other(whole, &model, &ranks)?;
    } else {
        frozen_fragments(whole, &model, &files.model, ranks.len(), options)?;
        each_among_all(whole, &model, &ranks)?;
    }
    whole.shared(&model)?;
    whole.note_others(&model);
    whole.keep(model);
    Ok(())
}

/// Whether a rank is one of the same checkpoint as the first.
fn fits(rank: &Partition, first: &Partition, files: usize) -> Result<()> {
    if rank.stage != first.stage {
        return Err(mismatch(&rank.path, "zero_stage", rank.stage, format!("{}, as on rank 0", first.stage)));
    }
    if rank.world != files as u64 {
        let found = format!("{files} files *_optim_states.pt");
        return Err(mismatch(&rank.path, "partition_count", found, format!("{}", rank.world)));
    }
    if rank.groups.len() != first.groups.len() {
        let needed = format!("{}, as on rank 0", first.groups.len());
        return Err(mismatch(&rank.path, "groups of parameters", rank.groups.len(), needed));
    }
    for (place, (group, other)) in rank.groups.iter().zip(&first.groups).enumerate() {
        let what = format!("group {place}");
        same_element(&rank.path, &what, group.element, other.element)?;
        if rank.stage == 3 && group.count != other.count {
            let found = format!("{} elements", group.count);
            return Err(mismatch(&rank.path, what, found, format!("{}, as on rank 0", other.count)));
        }
    }
    Ok(())
}

/// Stages 1 and 2.
fn one_after_the_other(whole: &mut Whole<'_>, model: &ModelStates, ranks: &[Partition]) -> Result<()> {
    let folder = &whole.folder.path;
    let Some(first) = ranks.first() else { return Ok(()) };
    if first.groups.len() != model.groups.len() {
        let found = format!("{} groups of parameters", first.groups.len());
        return Err(mismatch(
            &first.path,
            "optimizer",
            found,
            format!("{}, as in param_shapes", model.groups.len()),
        ));
    }
    for (place, (shapes, group)) in model.groups.iter().zip(&first.groups).enumerate() {
        let flats: Vec<&Flat> = ranks.iter().filter_map(|rank| rank.groups.get(place)).collect();
        let total = flats.iter().fold(0u64, |all, flat| all.saturating_add(flat.count));
        let padded = first.paddings.as_ref().map(|all| all.get(place).map_or(&[][..], Vec::as_slice));
        if let Some(padded) = padded.filter(|padded| padded.len() != shapes.len()) {
            let what = format!("param_alignment_paddings of group {place}");
            return Err(mismatch(&first.path, what, padded.len(), format!("{}", shapes.len())));
        }
        let mut offset = 0u64;
        for (number, (name, shape)) in shapes.iter().enumerate() {
            let end = offset.saturating_add(numel(shape));
            if end > total {
                let what = format!("{name}: group {place}");
                return Err(mismatch(
                    folder,
                    what,
                    format!("{total} elements on all ranks"),
                    format!("{end}"),
                ));
            }
            whole.add(name, group.element, shape, cut(&flats, offset, end))?;
            let padding = padded.and_then(|padded| padded.get(number)).copied().unwrap_or(0);
            offset = end.saturating_add(padding);
        }
        // What is left is padding: less than one step of the alignment.
        let step = (ranks.len() as u64).saturating_mul(2).max(1);
        if offset.div_ceil(step) != total.div_ceil(step) {
            let (what, found) = (format!("group {place}"), format!("{total} elements on all ranks"));
            return Err(mismatch(folder, what, found, format!("{offset}, and padding to {step}")));
        }
    }
    Ok(())
}

/// Stage 3.
fn each_among_all(whole: &mut Whole<'_>, model: &ModelStates, ranks: &[Partition]) -> Result<()> {
    let folder = &whole.folder.path;
    let Some(first) = ranks.first() else { return Ok(()) };
    let total = first.groups.iter().fold(0u64, |all, flat| all.saturating_add(flat.count));
    let flats: Vec<Vec<&Flat>> = ranks.iter().map(|rank| rank.groups.iter().collect()).collect();
    let mut offset = 0u64;
    for (name, shape) in model.groups.iter().flatten() {
        let count = numel(shape);
        let share = count.div_ceil((ranks.len() as u64).max(1));
        let end = offset.saturating_add(share);
        if end > total {
            let found = format!("{total} elements on each rank");
            return Err(mismatch(folder, name.as_str(), found, format!("{end}")));
        }
        let mut parts = Vec::with_capacity(ranks.len());
        let mut left = count;
        for rank in &flats {
            let taken = share.min(left);
            parts.append(&mut cut(rank, offset, offset.saturating_add(taken)));
            left = left.saturating_sub(taken);
        }
        let element = first.groups.first().map_or(tensafe_pickle::Element::F32, |flat| flat.element);
        whole.add(name, element, shape, parts)?;
        offset = end;
    }
    if offset != total {
        let found = format!("{total} elements on each rank");
        return Err(mismatch(folder, "groups of parameters", found, format!("{offset}")));
    }
    Ok(())
}

/// Frozen parameters of stage 3, of which each rank has a fragment.
fn frozen_fragments(
    whole: &mut Whole<'_>,
    model: &ModelStates,
    paths: &[PathBuf],
    world: usize,
    options: &PickledOptions,
) -> Result<()> {
    if model.frozen.is_empty() {
        return Ok(());
    }
    if paths.len() != world {
        let found = format!("{}", paths.len());
        return Err(mismatch(
            &whole.folder.path,
            "*_model_states.pt",
            found,
            format!("{world}, one of each rank"),
        ));
    }
    let mut others = Vec::with_capacity(paths.len());
    for path in paths.iter().skip(1) {
        let mut file = RankFile::open(path, options)?;
        whole.pickled.symbols.append(&mut file.pickled.symbols);
        others.push(file);
    }
    let files: Vec<&RankFile> = std::iter::once(&model.file).chain(&others).collect();
    model::frozen(whole, &files, &model.frozen)
}

/// The elements `start..end` of flat tensors that follow each other.
fn cut(flats: &[&Flat], start: u64, end: u64) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut first = 0u64;
    for flat in flats {
        let last = first.saturating_add(flat.count);
        let (from, to) = (start.max(first), end.min(last));
        if from < to {
            parts.push(flat.cut(from.saturating_sub(first), to.saturating_sub(first)));
        }
        first = last;
        if first >= end {
            break;
        }
    }
    parts
}
