"""What the hostile corpus has so far, and the one way to add to it."""

FILES: dict[str, bytes] = {}
MANIFEST: dict[str, dict[str, object]] = {}
LARGEST = 4096
# Legal to Python, if odd or costly: a reader has to survive these within its limits, and may say what it likes.
ODD = {
    f"{name}.pkl"
    for name in (
        "broken_binfloat_nan_key broken_int_bool broken_int_text_hex dos_billion_laughs_dicts "
        "dos_billion_laughs_lists dos_billion_laughs_tuples dos_bytearray_by_number dos_colliding_ints "
        "dos_counter_of_huge dos_dup_grows dos_empty_appends dos_float_text_long dos_get_grows dos_hash_bomb "
        "dos_int_text_4000_digits dos_long1_255 dos_long4_3000 dos_long4_50000 dos_long_text_30000_digits "
        "dos_memo_grows dos_nested_lists dos_nested_lists_50000 dos_nested_reduce dos_nested_tuples "
        "dos_nested_tuples_60000 dos_setitems_same_key dos_shape_bomb_ndarray dos_stack_grows "
        "dos_structured_dtype_huge dos_torch_size_huge dos_unicode_escapes memo_dict_of_self memo_get_of_self "
        "memo_tuple_of_self nested_base85 nested_raw_deflate nested_reversed nested_source_code_text "
        "nested_split nested_uuencoded nested_xored type_newobj_of_object_dict type_pop_of_mark"
    ).split()
} | {
    f"{name}.pt"
    for name in (
        "storage_byteorder_missing_newline storage_location_is_code storage_location_is_meta "
        "storage_meta_tensor_huge storage_rank_200 storage_same_key_twice storage_size_product_huge_stride_zero "
        "storage_size_zero_and_huge storage_tied_names_differ storage_version_huge storage_version_is_text"
    ).split()
} | {"legacy_big_endian_lie.pth", "legacy_type_sizes_differ.pth", "poly_rds_magic.rds"}  # fmt: skip
# A scanner has to say something; a converter may take the tensors, for what else is there is only data.
DATA = (
    "legacy_in_storage_bytes", "nested_", "poly_safetensors_", "torch_hparams_name", "torch_hydra_target",
    "torch_lightning_instantiator", "zip_comment_is_pickle", "zip_extra_is_pickle", "zip_inner_storage",
    "zip_inner_version", "zip_member_comment",
)  # fmt: skip
DATA_CONTAINERS = {"json", "text", "gguf", "onnx", "keras zip"}
EFFECTS = {"exec", "import", "network", "file", "dos", "deceive", "nested", "memory", "broken"}


def add(
    name: str,
    content: bytes,
    technique: str,
    made: str,
    effect: str = "exec",
    container: str = "raw",
    reference: str = "",
    symbols: tuple[str, ...] = (),
    large: int = LARGEST,
) -> None:
    """One file. `large` allows more than the usual size where the size is the point."""
    assert name not in FILES and name.lower() not in {n.lower() for n in FILES}, name
    assert len(content) <= large, (name, len(content))
    assert effect in EFFECTS, effect
    verdict = "bad"
    if name in ODD:
        verdict = "odd"
    elif container in DATA_CONTAINERS or (name.startswith(DATA) and (effect != "exec" or "torch" in name)):
        verdict = "scan"
    FILES[name] = content
    MANIFEST[name] = {
        "technique": technique,
        "made": made,
        "effect": effect,
        "verdict": verdict,
        "container": container,
        "reference": reference,
        "symbols": list(symbols),
    }
