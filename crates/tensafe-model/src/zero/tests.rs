//! Folders of two ranks, as tensafe's engine for DeepSpeed saves them: sound ones, and such as no
//! run leaves.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tensafe_format::{Dtype, Layout, LayoutOptions, Metadata, TensorSpec};
use tensafe_io::{Buffer, MemorySource, Source as _};

use super::{parts, structure};
use crate::{ConvertOptions, ErrorKind, Pickled, PickledOptions, load};

/// A dict of the structure.
fn dict(entries: &[(&str, Json)]) -> Json {
    let pairs: Vec<Json> = entries.iter().map(|(key, value)| json!([key, value])).collect();
    json!({ "is": "dict", "of": pairs })
}

fn tensor(name: &str) -> Json {
    json!({ "is": "tensor", "of": name })
}

fn shapes(entries: &[(&str, Json)]) -> Json {
    let sizes: Vec<(&str, Json)> =
        entries.iter().map(|(name, shape)| (*name, json!({ "is": "size", "of": shape }))).collect();
    dict(&sizes)
}

/// A safetensors file of float32 tensors with a structure around them.
fn save(path: &Path, state: &Json, tensors: &[(&str, &[f32])]) {
    let metadata: Metadata = [(structure::KEY.to_owned(), state.to_string())].into_iter().collect();
    let specs = tensors
        .iter()
        .map(|(name, values)| TensorSpec::new((*name).to_owned(), Dtype::F32, vec![values.len() as u64]));
    let layout = Layout::new(specs, Some(&metadata), &LayoutOptions::default()).unwrap();
    let mut bytes = layout.header_bytes().to_vec();
    bytes.resize(usize::try_from(layout.file_bytes()).unwrap(), 0);
    for (place, (_, values)) in tensors.iter().enumerate() {
        let start = usize::try_from(layout.file_range(place).unwrap().start).unwrap();
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        bytes[start..start + data.len()].copy_from_slice(&data);
    }
    fs::write(path, bytes).unwrap();
}

/// A folder of two ranks with a tag, of this stage.
struct Run {
    directory: TempDir,
    stage: u64,
}

impl Run {
    fn new(stage: u64) -> Self {
        let run = Self { directory: TempDir::new().unwrap(), stage };
        fs::create_dir(run.folder()).unwrap();
        fs::write(run.directory.path().join("latest"), "step1\n").unwrap();
        run
    }

    fn folder(&self) -> PathBuf {
        self.directory.path().join("step1")
    }

    fn model_file(&self, rank: usize) -> PathBuf {
        let name = match self.stage {
            3 => format!("zero_pp_rank_{rank}_mp_rank_00_model_states.pt"),
            _ => "mp_rank_00_model_states.pt".to_owned(),
        };
        self.folder().join(name)
    }

    fn optim_file(&self, rank: usize) -> PathBuf {
        self.folder().join(format!("zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"))
    }

    fn model(&self, rank: usize, groups: &Json, frozen: &Json, tensors: &[(&str, &[f32])]) {
        let fragments: Vec<(&str, Json)> = tensors
            .iter()
            .filter_map(|(name, _)| Some((name.strip_prefix("frozen_param_fragments.")?, tensor(name))))
            .collect();
        let module: Vec<(&str, Json)> = tensors
            .iter()
            .filter_map(|(name, _)| Some((name.strip_prefix("module.")?, tensor(name))))
            .collect();
        let state = dict(&[
            ("module", dict(&module)),
            ("buffer_names", json!(["mean"])),
            ("param_shapes", groups.clone()),
            ("frozen_param_shapes", frozen.clone()),
            ("frozen_param_fragments", dict(&fragments)),
            ("shared_params", dict(&[("second", json!("a"))])),
        ]);
        save(&self.model_file(rank), &state, tensors);
    }

    fn optim(&self, rank: usize, world: &Json, paddings: &Json, groups: &[&[f32]]) {
        let key = if self.stage == 3 { "fp32_flat_groups" } else { "single_partition_of_fp32_groups" };
        let names: Vec<String> =
            (0..groups.len()).map(|place| format!("optimizer_state_dict.{key}.{place}")).collect();
        let listed: Vec<Json> = names.iter().map(|name| tensor(name)).collect();
        let state = dict(&[
            ("zero_stage", json!({ "is": "enum", "name": "ZeroStageEnum", "of": self.stage })),
            ("partition_count", world.clone()),
            ("param_alignment_paddings", paddings.clone()),
            (key, json!(listed)),
        ]);
        let tensors: Vec<(&str, &[f32])> =
            names.iter().map(String::as_str).zip(groups.iter().copied()).collect();
        save(&self.optim_file(rank), &dict(&[("optimizer_state_dict", state)]), &tensors);
    }

    /// What comes out: names, shapes, values.
    fn tensors(&self) -> Vec<(String, Vec<u64>, Vec<f32>)> {
        let pickled = Pickled::open(self.directory.path(), &PickledOptions::default()).unwrap();
        let loaded = load(pickled, &ConvertOptions::default(), &mut |_| ControlFlow::Continue(())).unwrap();
        let floats = |buffer: &Buffer| -> Vec<f32> {
            buffer.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        };
        loaded.into_iter().map(|(tensor, buffer)| (tensor.name, tensor.shape, floats(&buffer))).collect()
    }

    /// Why it is refused, without the path of the directory.
    fn refused(&self) -> (ErrorKind, String) {
        let error = Pickled::open(self.directory.path(), &PickledOptions::default()).unwrap_err();
        let directory = format!("{}/", self.directory.path().display());
        (error.kind(), error.chain().to_string().replace(&directory, ""))
    }
}

/// `a` of 3 and `b` of 2 elements in a group, `c` of 1 in another.
fn groups() -> Json {
    json!([shapes(&[("a", json!([3])), ("b", json!([1, 2]))]), shapes(&[("c", json!([]))])])
}

const BUFFERS: [(&str, &[f32]); 1] = [("module.mean", &[0.5])];

fn second_stage() -> Run {
    let run = Run::new(2);
    run.model(0, &groups(), &Json::Null, &BUFFERS);
    run.optim(0, &json!([2, 2]), &Json::Null, &[&[1., 2.], &[6.]]);
    run.optim(1, &json!([2, 2]), &Json::Null, &[&[3., 4., 5., 0.], &[]]);
    run
}

fn third_stage() -> Run {
    let run = Run::new(3);
    let frozen = shapes(&[("f", json!([3]))]);
    for (rank, fragment) in [[7., 8.], [9., 0.]].iter().enumerate() {
        let tensors = [BUFFERS[0], ("frozen_param_fragments.f", &fragment[..])];
        run.model(rank, &groups(), &frozen, &tensors);
    }
    run.optim(0, &json!(2), &Json::Null, &[&[1., 2., 4.], &[6.]]);
    run.optim(1, &json!(2), &Json::Null, &[&[3., 0., 5.], &[0.]]);
    run
}

fn row(name: &str, shape: &[u64], values: &[f32]) -> (String, Vec<u64>, Vec<f32>) {
    (name.to_owned(), shape.to_vec(), values.to_vec())
}

#[test]
fn parts_of_a_group_follow_each_other_in_stages_1_and_2() {
    let needed = [
        row("mean", &[1], &[0.5]),
        row("a", &[3], &[1., 2., 3.]),
        row("b", &[1, 2], &[4., 5.]),
        row("c", &[], &[6.]),
        row("second", &[3], &[1., 2., 3.]),
    ];
    assert_eq!(second_stage().tensors(), needed);
}

#[test]
fn each_parameter_is_among_all_ranks_in_stage_3() {
    let needed = [
        row("mean", &[1], &[0.5]),
        row("f", &[3], &[7., 8., 9.]),
        row("a", &[3], &[1., 2., 3.]),
        row("b", &[1, 2], &[4., 5.]),
        row("c", &[], &[6.]),
        row("second", &[3], &[1., 2., 3.]),
    ];
    assert_eq!(third_stage().tensors(), needed);
}

#[test]
fn padding_between_parameters_is_left_out() {
    let run = Run::new(1);
    run.model(0, &groups(), &Json::Null, &BUFFERS);
    let paddings = json!([[1, 0], [0]]);
    run.optim(0, &json!(2), &paddings, &[&[1., 2., 3.], &[6.]]);
    run.optim(1, &json!(2), &paddings, &[&[0., 4., 5.], &[]]);
    assert_eq!(run.tensors()[2], row("b", &[1, 2], &[4., 5.]));
    run.optim(0, &json!(2), &json!([[1], [0]]), &[&[1., 2., 3.], &[6.]]);
    let file = "step1/zero_pp_rank_0_mp_rank_00_optim_states.pt";
    let text = format!("{file}: param_alignment_paddings of group 0: found 1, needed 2");
    assert_eq!(run.refused(), (ErrorKind::Format, text));
}

#[test]
fn a_missing_rank_is_refused() {
    for (gone, text) in [
        (0, "step1: *_optim_states.pt of rank 0: found none among 1, needed one of each rank"),
        (
            1,
            "step1/zero_pp_rank_0_mp_rank_00_optim_states.pt: partition_count: found 1 files *_optim_states.pt, \
             needed 2",
        ),
    ] {
        let run = second_stage();
        fs::remove_file(run.optim_file(gone)).unwrap();
        assert_eq!(run.refused(), (ErrorKind::Format, text.to_owned()));
    }
    let run = third_stage();
    fs::remove_file(run.model_file(1)).unwrap();
    let text = "step1: *_model_states.pt: found 1, needed 2, one of each rank";
    assert_eq!(run.refused(), (ErrorKind::Format, text.to_owned()));
    fs::remove_file(run.model_file(0)).unwrap();
    let text = "step1: *_model_states.pt: found none, needed at least that of rank 0";
    assert_eq!(run.refused(), (ErrorKind::Format, text.to_owned()));
}

#[test]
fn ranks_of_other_worlds_are_refused() {
    let run = second_stage();
    run.optim(1, &json!(3), &Json::Null, &[&[3., 4., 5., 0.], &[]]);
    let file = "step1/zero_pp_rank_1_mp_rank_00_optim_states.pt";
    let text = format!("{file}: partition_count: found 2 files *_optim_states.pt, needed 3");
    assert_eq!(run.refused(), (ErrorKind::Format, text));
    run.optim(1, &json!(2), &Json::Null, &[&[3., 4., 5., 0.]]);
    let text = format!("{file}: groups of parameters: found 1, needed 2, as on rank 0");
    assert_eq!(run.refused(), (ErrorKind::Format, text));
    let run = second_stage();
    fs::copy(third_stage().optim_file(1), run.optim_file(1)).unwrap();
    assert_eq!(
        run.refused(),
        (ErrorKind::Format, format!("{file}: zero_stage: found 3, needed 2, as on rank 0"))
    );
}

#[test]
fn partitions_that_are_too_short_or_too_long_are_refused() {
    let run = second_stage();
    run.optim(1, &json!(2), &Json::Null, &[&[3., 4.], &[]]);
    let text = "step1: b: group 0: found 4 elements on all ranks, needed 5";
    assert_eq!(run.refused(), (ErrorKind::Format, text.to_owned()));
    run.optim(1, &json!(2), &Json::Null, &[&[3., 4., 5., 0., 0., 0., 0.], &[]]);
    let text = "step1: group 0: found 9 elements on all ranks, needed 5, and padding to 4";
    assert_eq!(run.refused(), (ErrorKind::Format, text.to_owned()));
    let run = third_stage();
    run.optim(1, &json!(2), &Json::Null, &[&[3., 0.], &[0.]]);
    let file = "step1/zero_pp_rank_1_mp_rank_00_optim_states.pt";
    let text = format!("{file}: group 0: found 2 elements, needed 3, as on rank 0");
    assert_eq!(run.refused(), (ErrorKind::Format, text));
    run.optim(0, &json!(2), &Json::Null, &[&[1., 2.], &[6.]]);
    let text = "step1: c: found 3 elements on each rank, needed 4";
    assert_eq!(run.refused(), (ErrorKind::Format, text.to_owned()));
    for rank in 0..2 {
        run.optim(rank, &json!(2), &Json::Null, &[&[1., 2., 4.], &[6., 0.]]);
    }
    let text = "step1: groups of parameters: found 5 elements on each rank, needed 4";
    assert_eq!(run.refused(), (ErrorKind::Format, text.to_owned()));
}

#[test]
fn shapes_that_no_parameter_has_are_refused() {
    for shape in [json!([4_294_967_296_u64, 4_294_967_296_u64]), json!([u64::MAX]), json!([-1]), json!([0.5])]
    {
        let run = second_stage();
        run.model(0, &json!([shapes(&[("a", shape.clone())]), shapes(&[])]), &Json::Null, &BUFFERS);
        let needed = "a shape of less than 2^63 elements";
        let text =
            format!("step1/mp_rank_00_model_states.pt: param_shapes.a: found {shape}, needed {needed}");
        assert_eq!(run.refused(), (ErrorKind::Format, text));
    }
    // A tensor of this many elements is nowhere, and no memory is asked for.
    let run = second_stage();
    run.model(0, &json!([shapes(&[("a", json!([1_u64 << 62]))]), shapes(&[])]), &Json::Null, &BUFFERS);
    let text = format!("step1: a: group 0: found 6 elements on all ranks, needed {}", 1_u64 << 62);
    assert_eq!(run.refused(), (ErrorKind::Format, text));
}

#[test]
fn fragments_of_frozen_parameters_have_to_be_whole() {
    let run = third_stage();
    let frozen = shapes(&[("f", json!([5]))]);
    run.model(0, &groups(), &frozen, &[BUFFERS[0], ("frozen_param_fragments.f", &[7., 8.])]);
    let text = "step1: frozen_param_fragments.f: found 4 elements, needed 5";
    assert_eq!(run.refused(), (ErrorKind::Format, text.to_owned()));
    run.model(1, &groups(), &frozen, &BUFFERS);
    let file = "step1/zero_pp_rank_1_mp_rank_00_model_states.pt";
    let text = format!("{file}: frozen_param_fragments.f: found nothing, needed a tensor");
    assert_eq!(run.refused(), (ErrorKind::Format, text));
}

#[test]
fn files_of_other_kinds_of_ranks_are_refused() {
    for (name, kind, text) in [
        (
            "zero_pp_rank_0_mp_rank_01_optim_states.pt",
            ErrorKind::Unsupported,
            "step1: `zero_pp_rank_0_mp_rank_01_optim_states.pt`: a part of a model that is split over ranks, needed \
             `mp_rank_00` alone",
        ),
        (
            "layer_1_expert_0_mp_rank_00_model_states.pt",
            ErrorKind::Unsupported,
            "step1: `layer_1_expert_0_mp_rank_00_model_states.pt`: a part of experts or of a pipeline, which is not \
             put together with the others",
        ),
        (
            "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt",
            ErrorKind::Format,
            "step1: rank 1: found zero_pp_rank_1_mp_rank_00_optim_states.pt and \
             bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt, needed one",
        ),
    ] {
        let run = second_stage();
        fs::copy(run.optim_file(1), run.folder().join(name)).unwrap();
        assert_eq!(run.refused(), (kind, text.to_owned()));
    }
}

#[test]
fn the_name_of_a_folder_leads_nowhere_else() {
    for tag in ["../step1", "..", "/etc", ""] {
        let run = second_stage();
        fs::write(run.directory.path().join("latest"), tag).unwrap();
        let found = if tag.is_empty() { "nothing" } else { tag };
        let text = format!("latest: the name: found {found}, needed that of a folder beside it");
        assert_eq!(run.refused(), (ErrorKind::Format, text));
    }
    let run = second_stage();
    fs::write(run.directory.path().join("latest"), "step9").unwrap();
    fs::write(run.directory.path().join("zero_to_fp32.py"), "").unwrap();
    let text = "latest: the folder step9: found none, needed a folder with files of ZeRO";
    assert_eq!(run.refused(), (ErrorKind::Format, text.to_owned()));
}

#[test]
fn what_a_rank_would_call_is_refused() {
    let run = second_stage();
    fs::write(run.optim_file(1), b"cos\nsystem\n(S'id'\ntR.").unwrap();
    let (kind, text) = run.refused();
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(
        text.contains("rank_1_mp_rank_00_optim_states.pt: the pickle names") && text.contains("`os.system`"),
        "{text}"
    );
}

#[test]
fn a_structure_that_is_none_is_refused() {
    let file = "step1/mp_rank_00_model_states.pt: ";
    for (state, text) in [
        (json!([1]), "tensafe.structure: found no state, needed one as it is saved"),
        (json!({ "is": "dict", "of": 1 }), "tensafe.structure: found no state, needed one as it is saved"),
        (dict(&[]), "buffer_names: found nothing, needed the names of the buffers"),
        (dict(&[("buffer_names", json!(1))]), "buffer_names: found 1, needed a list of text"),
        (
            dict(&[("buffer_names", json!([])), ("param_shapes", json!(1))]),
            "param_shapes: found 1, needed a list of dicts",
        ),
    ] {
        let run = second_stage();
        save(&run.model_file(0), &state, &[]);
        assert_eq!(run.refused(), (ErrorKind::Format, format!("{file}{text}")));
    }
}

#[test]
fn a_file_that_changes_after_it_was_read_is_an_error() {
    let run = third_stage();
    let pickled = Pickled::open(run.directory.path(), &PickledOptions::default()).unwrap();
    run.optim(1, &json!(2), &Json::Null, &[&[9., 9., 9., 9.], &[9.]]);
    let error = load(pickled, &ConvertOptions::default(), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.chain().to_string().ends_with("the file was changed since its pickle was read"), "{error}");
}

#[test]
fn universal_folders_have_each_parameter_whole() {
    let run = Run::new(2);
    run.model(0, &groups(), &Json::Null, &BUFFERS);
    for (name, values) in
        [("a", &[1.0_f32, 2., 3.][..]), ("b", &[4., 5.]), ("c", &[6.]), ("second", &[0.; 3])]
    {
        let directory = run.folder().join("zero").join(name);
        fs::create_dir_all(&directory).unwrap();
        save(&directory.join("fp32.pt"), &dict(&[("param", tensor("param"))]), &[("param", values)]);
    }
    let needed = [
        row("mean", &[1], &[0.5]),
        row("a", &[3], &[1., 2., 3.]),
        row("b", &[1, 2], &[4., 5.]),
        row("c", &[], &[6.]),
        row("second", &[3], &[1., 2., 3.]),
    ];
    assert_eq!(run.tensors(), needed);
    let b = run.folder().join("zero/b/fp32.pt");
    save(&b, &dict(&[("param", tensor("param"))]), &[("param", &[4.])]);
    let text = "step1/zero/b/fp32.pt: b: found 1 elements, needed 2, as in param_shapes";
    assert_eq!(run.refused(), (ErrorKind::Format, text.to_owned()));
    fs::remove_file(b).unwrap();
    let text = "step1: zero/b/fp32.pt: found nothing, needed a parameter";
    assert_eq!(run.refused(), (ErrorKind::Format, text.to_owned()));
}

proptest! {
    #[test]
    fn joined_parts_read_as_their_bytes_in_a_row(
        lengths in prop::collection::vec(0_usize..9, 0..6),
        offset in 0_usize..40,
        length in 0_usize..40,
    ) {
        let mut whole = Vec::new();
        let joined = lengths.iter().map(|length| {
            let bytes: Vec<u8> = (0..*length + 3).map(|at| u8::try_from(whole.len() + at).unwrap()).collect();
            whole.extend_from_slice(&bytes[2..2 + length]);
            let source = Arc::new(MemorySource::new(Buffer::from_owner(bytes)));
            parts::Part { source, range: 2..2 + *length as u64 }
        });
        let (source, range) = parts::join(joined.collect());
        prop_assert_eq!(range.end - range.start, whole.len() as u64);
        let mut out = vec![0; length];
        let within = offset + length <= whole.len();
        if within {
            source.read_at(range.start + offset as u64, &mut out).unwrap();
            prop_assert_eq!(out.as_slice(), &whole[offset..offset + length]);
        } else if range.start == 0 && length > 0 {
            prop_assert!(source.read_at(offset as u64, &mut out).is_err());
        }
    }
}
