#!/usr/bin/env python3
"""Writes the files of this directory. Run it after a change here; needs the standard library alone.

    python3 tests/corpus/make.py            write the files, remove those that are no longer made
    python3 tests/corpus/make.py --check    exit with 1 where a file on disk differs

A file's directory is its verdict, its name is the flaw (or what looks like one):

    accept/         read strictly, and so leniently
    lenient/        refused strictly, read with Mode::Lenient, which is what the reference's code does
    reject/         refused in both modes
    accept-index/   an index of shards that is read
    reject-index/   an index of shards that is refused

errors.txt holds the exact text of the strict error of each refused file. The test of tensafe-format
compares it, and writes it when TENSAFE_UPDATE=1 is set. The numbers in comments are rules of docs/spec.md.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
DIRECTORIES = ["accept", "lenient", "reject", "accept-index", "reject-index"]
LARGEST = 64 * 1024
FILES: dict[str, bytes] = {}

# Name and bits of each dtype, in the order of docs/spec.md.
DTYPES = [
    ("BOOL", 8), ("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6), ("U8", 8), ("I8", 8), ("F8_E5M2", 8),
    ("F8_E4M3", 8), ("F8_E8M0", 8), ("F8_E4M3FNUZ", 8), ("F8_E5M2FNUZ", 8), ("I16", 16), ("U16", 16),
    ("F16", 16), ("BF16", 16), ("I32", 32), ("U32", 32), ("F32", 32), ("C64", 64), ("F64", 64),
    ("I64", 64), ("U64", 64),
]  # fmt: skip


def add(path: str, content: bytes) -> None:
    """One file of the corpus."""
    assert path not in FILES, path
    assert len(content) <= LARGEST, path
    FILES[path] = content


def raw(header: str | bytes, data: int | bytes = 0, length: int | None = None) -> bytes:
    """A file with this header, as it stands, and `data` (bytes, or how many)."""
    text = header.encode() if isinstance(header, str) else header
    body = bytes(i % 251 for i in range(data)) if isinstance(data, int) else data
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def entry(dtype: str = '"U8"', shape: str = "[4]", offsets: str = "[0,4]", extra: str = "") -> str:
    """The JSON of one entry, from the JSON of its parts."""
    return f'{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}{extra}}}'


def one(dtype: str = '"U8"', shape: str = "[4]", offsets: str = "[0,4]", extra: str = "") -> str:
    """A header with the one tensor `a`."""
    return f'{{"a":{entry(dtype, shape, offsets, extra)}}}'


def two(first: str, second: str) -> str:
    """A header with the tensors `a` and `b`, both U8, from their offsets as `begin..end`."""
    spans = [tuple(map(int, text.split(".."))) for text in (first, second)]
    parts = [
        f'"{name}":{entry(shape=f"[{end - begin}]", offsets=f"[{begin},{end}]")}'
        for name, (begin, end) in zip("ab", spans, strict=False)
    ]
    return "{" + ",".join(parts) + "}"


def named(name: str) -> str:
    """A header with one tensor, its name given as JSON writes it between the quotes."""
    return f'{{"{name}":{entry()}}}'


GOOD = one()


def accept() -> None:
    def case(name: str, header: str | bytes, data: int | bytes = 0) -> None:
        add(f"accept/{name}.safetensors", raw(header, data))

    case("empty_object_without_data", "{}")
    case("metadata_alone", '{"__metadata__":{"format":"pt"}}')
    case("metadata_empty", '{"__metadata__":{}}')
    case("metadata_after_the_tensors", GOOD[:-1] + ',"__metadata__":{"k":"v"}}', 4)
    case("metadata_named_by_escape", '{"__metadata\\u005f_":{"k":"v"}}')
    case("metadata_holds_json_as_text", '{"__metadata__":{"config":"{\\"a\\": [1, null]}"}}')
    case("metadata_empty_key_and_value", '{"__metadata__":{"":""}}')
    case("metadata_of_50_kilobytes", '{"__metadata__":{"k":"' + "v" * 50_000 + '"}}')
    case("metadata_keys_that_differ_in_case", '{"__metadata__":{"k":"1","K":"2"}}')
    case("reference_writer_i32", '{"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}}', 16)

    end, parts, data = 0, [], b""
    for name, bits in DTYPES:
        size = 4 * bits // 8
        parts.append(f'"{name.lower()}":{entry(json.dumps(name), "[2,2]", f"[{end},{end + size}]")}')
        end += size
        data += bytes((end + i) % 256 for i in range(size))
    case("every_dtype", "{" + ",".join(parts) + "}", data)

    # S-05: white space at both ends.
    case("leading_space", " " + GOOD, 4)
    case("leading_newline_tab_and_return", "\n\t\r " + GOOD, 4)
    case("trailing_newline_tab_and_return", GOOD + " \n\t\r", 4)
    case("padded_to_a_page_in_front", GOOD.rjust(4096 - 8), 4)
    case("padded_to_a_page_behind", GOOD.ljust(4096 - 8), 4)
    case(
        "white_space_between_tokens",
        '{ "a" :\n{ "dtype" : "U8" ,\t"shape" : [ 4 ] , "data_offsets":[ 0 , 4 ] } }',
        4,
    )

    # S-06: names are data.
    case("name_empty", named(""), 4)
    case("name_with_nul", named("a\\u0000b"), 4)
    case("name_with_control_characters", named("\\n\\u001b[31m\\u007f"), 4)
    case("name_with_bidi_override", named("a\u202eb"), 4)
    case("name_that_looks_like_a_path", named("../../etc/passwd"), 4)
    case("name_beyond_the_first_plane", named("\U0001f600"), 4)
    case("name_by_surrogate_pair", named("\\ud83d\\ude00"), 4)
    case("name_with_every_escape", named('\\"\\\\\\/\\b\\f\\n\\r\\t\\u00E9'), 4)
    case("name_of_20_kilobytes", named("n" * 20_000), 4)
    case("name_close_to_metadata", named("__METADATA__"), 4)
    twins = f'{{"\u00e9":{entry()},"e\u0301":{entry(offsets="[4,8]")}}}'
    case("names_equal_after_normalisation", twins, 8)
    case("names_equal_but_for_case", f'{{"a":{entry()},"A":{entry(offsets="[4,8]")}}}', 8)

    # S-08, S-09: order and escapes mean nothing.
    case("fields_in_another_order", '{"a":{"data_offsets":[0,4],"shape":[4],"dtype":"U8"}}', 4)
    case("field_named_by_escape", '{"a":{"\\u0064type":"U8","shape":[4],"data_offsets":[0,4]}}', 4)
    case("dtype_by_escape", one('"\\u00558"'), 4)
    case("entries_not_in_order_of_offsets", two("4..8", "0..4"), 8)

    # S-10, S-12, S-15: no elements, one element, many dimensions.
    case("scalar", one(shape="[]", offsets="[0,1]"), 1)
    case("zero_dimension_alone", one(shape="[0]", offsets="[0,0]"))
    case("zero_dimension_beside_a_large_one", one(shape="[0,1152921504606846976]", offsets="[0,0]"))
    case("zero_size_tensor_at_the_start", two("0..0", "0..4"), 4)
    case("zero_size_tensor_at_the_end", two("0..4", "4..4"), 4)
    three = f'{two("0..4", "4..8")[:-1]},"z":{entry(shape="[3,0]", offsets="[4,4]")}}}'
    case("zero_size_tensor_between_two", three, 8)
    case("zero_size_tensors_at_one_border", two("0..0", "0..0"))
    case("thousand_dimensions", one(shape=json.dumps([1] * 1000), offsets="[0,1]"), 1)

    # S-13, S-20: sub-byte elements.
    case("f4_pair", one('"F4"', "[2]", "[0,1]"), b"\x21")
    case("f4_odd_last_dimension", one('"F4"', "[2,1]", "[0,1]"), b"\x21")
    case("f4_odd_and_empty", one('"F4"', "[3,0]", "[0,0]"))
    case("f6_e2m3_four_elements", one('"F6_E2M3"', "[4]", "[0,3]"), 3)
    case("f6_e3m2_four_elements", one('"F6_E3M2"', "[2,2]", "[0,3]"), 3)

    # S-18, S-21: not looked at.
    case("header_length_not_a_multiple_of_8", GOOD.ljust(len(GOOD) | 1), 4)
    odd = f'{{"a":{entry(shape="[1]", offsets="[0,1]")},"b":{entry(chr(34) + "F64" + chr(34), "[1]", "[1,9]")}}}'
    case("f64_at_an_odd_offset", odd, 9)
    case("bool_byte_of_2", one('"BOOL"', "[3]", "[0,3]"), b"\x00\x01\x02")


def lenient() -> None:
    def case(name: str, header: str, data: int = 4) -> None:
        add(f"lenient/{name}.safetensors", raw(header, data))

    def twice(first: str, second: str, name: str = "a") -> str:
        return f'{{"a":{first},"{name}":{second}}}'

    # S-06.
    case("duplicate_name_same_entry", twice(entry(), entry()))
    case("duplicate_name_by_escape", twice(entry(), entry(), "\\u0061"))
    case("duplicate_name_other_dtype", twice(entry(), entry('"I8"', "[2,2]")))
    case("duplicate_name_other_offsets", twice(entry(offsets="[8,12]"), entry()))
    case("duplicate_name_first_overflows", twice(entry(shape="[4294967296,4294967296]"), entry()))
    case("duplicate_name_first_offsets_reversed", twice(entry(offsets="[4,0]"), entry()))
    case("duplicate_name_three_times", f'{{"a":{entry()},"a":{entry()},"a":{entry()}}}')
    # S-07.
    case("metadata_null", '{"__metadata__":null,' + GOOD[1:])
    case("metadata_key_twice", '{"__metadata__":{"k":"1","k":"2"},' + GOOD[1:])
    case("metadata_key_twice_by_escape", '{"__metadata__":{"k":"1","\\u006b":"2"},' + GOOD[1:])
    # S-08.
    case("unknown_field", one(extra=',"strides":[1]'))
    case("unknown_field_twice", one(extra=',"x":1,"x":2'))
    case("unknown_field_named_empty", one(extra=',"":null'))
    case("unknown_field_in_other_case", one(extra=',"Dtype":"U8"'))
    case("unknown_field_with_largest_number", one(extra=',"x":1.7976931348623157e308'))
    case("unknown_field_nested_to_the_limit", one(extra=',"x":' + "[" * 125 + "]" * 125))
    case("unknown_field_nested_to_the_limit_around_a_value", one(extra=',"x":' + "[" * 125 + "0" + "]" * 125))
    case("entry_as_array", '{"a":["U8",[4],[0,4]]}')
    # S-09.
    case("dtype_as_object", one('{"U8":null}'))
    # S-12.
    huge = "1099511627776"
    case("zero_dimension_before_an_overflow", one(shape=f"[0,{huge},{huge}]", offsets="[0,0]"), 0)
    case("zero_dimension_within_an_overflow", one(shape=f"[{huge},0,{huge}]", offsets="[0,0]"), 0)


def reject() -> None:
    def case(name: str, header: str | bytes, data: int | bytes = 4, length: int | None = None) -> None:
        add(f"reject/{name}.safetensors", raw(header, data, length))

    # S-01 to S-03: the frame.
    add("reject/file_empty.safetensors", b"")
    add("reject/file_of_7_bytes.safetensors", b"\x02\0\0\0\0\0\0")
    add("reject/file_of_8_zero_bytes.safetensors", bytes(8))
    case("header_length_0", "", 2)
    case("header_length_one_over_the_limit", "{}", 0, 100_000_001)
    case("header_length_2_to_the_64_less_1", "{}", 0, 2**64 - 1)
    case("header_length_2_to_the_63", "{}", 0, 2**63)
    case("header_length_at_the_limit_beyond_the_file", "{}", 0, 100_000_000)
    case("header_length_one_beyond_the_file", "{}", 0, 3)
    case("header_length_big_endian", "{}", 0, 2 << 56)
    case("header_length_swallows_the_data", GOOD, bytes(4), len(GOOD) + 4)
    case("header_length_one_too_short", GOOD, 4, len(GOOD) - 1)

    # S-04: UTF-8.
    case("utf8_stray_continuation", b'{"\x80":' + entry().encode() + b"}")
    case("utf8_overlong", b'{"\xc0\xaf":' + entry().encode() + b"}")
    case("utf8_encoded_surrogate", b'{"\xed\xa0\x80":' + entry().encode() + b"}")
    case("utf8_cut_at_the_end", GOOD.encode() + b"\xe2\x82")
    case("utf16_header", GOOD.encode("utf-16-le"))

    # S-05: JSON.
    case("json_not_at_all", "hello world")
    case("json_only_white_space", "    ", 0)
    case("json_array_at_the_top", "[]", 0)
    case("json_null_at_the_top", "null", 0)
    case("json_string_at_the_top", '"a"', 0)
    case("json_number_at_the_top", "1", 0)
    case("json_byte_order_mark", "\ufeff" + GOOD)
    case("json_padded_with_nul", GOOD + "\0\0\0")
    case("json_nul_in_front", "\0" + GOOD)
    case("json_padded_with_no_break_space", GOOD + "\u00a0")
    case("json_padded_with_form_feed", GOOD + "\f")
    case("json_second_value", GOOD + "{}")
    case("json_second_value_after_space", GOOD + " {}")
    case("json_trailing_comma_in_object", GOOD[:-1] + ",}")
    case("json_trailing_comma_in_shape", one(shape="[4,]"))
    case("json_leading_comma_in_shape", one(shape="[,4]"))
    case("json_missing_comma", f'{{"a":{entry()} "b":{entry(offsets="[4,8]")}}}', 8)
    case("json_missing_colon", '{"a"' + entry() + "}")
    case("json_object_not_closed", GOOD[:-1])
    case("json_cut_within_a_string", '{"a')
    case("json_cut_within_an_escape", '{"a\\u00')
    case("json_line_comment", "// weights\n" + GOOD)
    case("json_block_comment", one(shape="[4/* rows */]"))
    case("json_single_quotes", GOOD.replace('"', "'"))
    case("json_name_without_quotes", "{a:" + entry() + "}")
    case("json_nan_in_shape", one(shape="[NaN]"))
    case("json_infinity_in_offsets", one(offsets="[0,Infinity]"))
    case("json_nan_in_unknown_field", one(extra=',"x":NaN'))
    case("json_hexadecimal_number", one(shape="[0x4]"))
    case("json_plus_sign", one(shape="[+4]"))
    case("json_number_out_of_range_in_unknown_field", one(extra=',"x":1e400'))
    case("json_number_without_fraction_digits", one(extra=',"x":1.'))
    case("json_word_in_capitals", one(extra=',"x":True'))
    case("json_lone_high_surrogate", named("\\ud800"))
    case("json_lone_low_surrogate", named("\\udc00"))
    case("json_high_surrogate_twice", named("\\ud800\\ud800"))
    case("json_high_surrogate_and_letter", named("\\ud800a"))
    case("json_unknown_escape", named("\\x41"))
    case("json_escape_without_hexadecimal_digits", named("\\u00g0"))
    case("json_raw_newline_in_name", named("a\nb"))
    case("json_raw_nul_in_name", named("a\0b"))
    case("json_nested_2000_deep_in_unknown_field", one(extra=',"x":' + "[" * 2000 + "]" * 2000))
    case("json_nested_one_too_deep_in_unknown_field", one(extra=',"x":' + "[" * 126 + "]" * 126))
    case("json_nested_objects_2000_deep", '{"a":' * 2000 + "1" + "}" * 2000)
    case("json_lone_surrogate_in_unknown_field", one(extra=',"x":"\\ud800"'))

    # S-06: a duplicate that leaves the data uncovered is refused in both modes.
    case("duplicate_name_other_range", f'{{"a":{entry()},"a":{entry(offsets="[4,8]")}}}', 8)
    case("duplicate_name_last_entry_does_not_fit", f'{{"a":{entry()},"a":{entry(shape="[5]")}}}')
    case("duplicate_name_first_entry_malformed", f'{{"a":{entry(chr(34) + "U9" + chr(34))},"a":{entry()}}}')

    # S-07: metadata.
    case("metadata_twice", '{"__metadata__":{},"__metadata__":{},' + GOOD[1:])
    case("metadata_twice_by_escape", '{"__metadata__":{},"__metadata\\u005f_":{},' + GOOD[1:])
    case("metadata_null_then_object", '{"__metadata__":null,"__metadata__":{},' + GOOD[1:])
    case("metadata_number", '{"__metadata__":1,' + GOOD[1:])
    case("metadata_string", '{"__metadata__":"pt",' + GOOD[1:])
    case("metadata_array", '{"__metadata__":[],' + GOOD[1:])
    case("metadata_value_number", '{"__metadata__":{"epoch":3},' + GOOD[1:])
    case("metadata_value_null", '{"__metadata__":{"k":null},' + GOOD[1:])
    case("metadata_value_bool", '{"__metadata__":{"k":true},' + GOOD[1:])
    case("metadata_value_object", '{"__metadata__":{"k":{"a":"b"}},' + GOOD[1:])
    case("metadata_value_array", '{"__metadata__":{"k":["a"]},' + GOOD[1:])
    case("metadata_as_tensor", named("__metadata__"))

    # S-08: entries.
    case("entry_string", '{"a":"x"}', 0)
    case("entry_number", '{"a":1}', 0)
    case("entry_null", '{"a":null}', 0)
    case("entry_bool", '{"a":true}', 0)
    case("entry_empty_object", '{"a":{}}', 0)
    case("entry_as_empty_array", '{"a":[]}', 0)
    case("entry_as_array_of_two", '{"a":["U8",[4]]}')
    case("entry_as_array_of_four", '{"a":["U8",[4],[0,4],0]}')
    case("entry_as_array_in_another_order", '{"a":[[4],"U8",[0,4]]}')
    case("field_dtype_missing", '{"a":{"shape":[4],"data_offsets":[0,4]}}')
    case("field_shape_missing", '{"a":{"dtype":"U8","data_offsets":[0,4]}}')
    case("field_data_offsets_missing", '{"a":{"dtype":"U8","shape":[4]}}')
    case("field_dtype_twice", one(extra=',"dtype":"U8"'))
    case("field_shape_twice", one(extra=',"shape":[4]'))
    case("field_data_offsets_twice", one(extra=',"data_offsets":[0,4]'))
    case("field_shape_twice_by_escape", one(extra=',"sh\\u0061pe":[4]'))

    # S-09: dtype.
    case("dtype_unknown", one('"I4"'))
    case("dtype_lower_case", one('"u8"'))
    case("dtype_with_space", one('"U8 "'))
    case("dtype_empty", one('""'))
    case("dtype_null", one("null"))
    case("dtype_number", one("8"))
    case("dtype_array", one('["U8"]'))
    case("dtype_as_empty_object", one("{}"))
    case("dtype_as_object_of_two", one('{"U8":null,"I8":null}'))
    case("dtype_as_object_with_value", one('{"U8":1}'))
    case("dtype_as_object_with_empty_object", one('{"U8":{}}'))
    case("dtype_as_object_unknown", one('{"U9":null}'))
    case("dtype_complex128", one('"C128"', "[1]", "[0,16]"), 16)

    # S-10: shape.
    for name, dim in [
        ("fraction", "4.0"), ("exponent", "4e0"), ("negative", "-4"), ("negative_zero", "-0"),
        ("leading_zero", "04"), ("string", '"4"'), ("null", "null"), ("bool", "true"), ("array", "[4]"),
        ("object", "{}"), ("2_to_the_64", "18446744073709551616"), ("of_400_digits", "9" * 400),
    ]:  # fmt: skip
        case(f"shape_{name}", one(shape=f"[{dim}]"))
    case("shape_not_an_array", one(shape="4"))
    case("shape_as_object", one(shape='{"0":4}'))
    case("shape_as_text", one(shape='"[4]"'))

    # S-11: offsets.
    for name, offsets in [
        ("none", "[]"), ("one", "[4]"), ("three", "[0,4,4]"), ("reversed", "[4,0]"), ("fraction", "[0,4.0]"),
        ("exponent", "[0,4e0]"), ("negative", "[-4,0]"), ("negative_zero", "[-0,4]"), ("string", '["0","4"]'),
        ("null", "null"), ("as_object", '{"begin":0,"end":4}'), ("as_string", '"0,4"'),
        ("null_inside", "[0,null]"), ("2_to_the_64", "[0,18446744073709551616]"),
        ("end_at_2_to_the_63", "[0,9223372036854775808]"), ("both_at_2_to_the_63", "[9223372036854775808,9223372036854775808]"),
        ("leading_zero", "[00,4]"),
    ]:  # fmt: skip
        case(f"offsets_{name}", one(offsets=offsets))
    case("offsets_largest", one(shape="[0]", offsets="[18446744073709551615,18446744073709551615]"))

    # S-12 to S-14: sizes.
    case("overflow_of_elements", one(shape="[4294967296,4294967296,2]"))
    case("overflow_of_bits", one(shape="[2305843009213693952]", offsets="[0,2305843009213693952]"))
    case("overflow_before_a_zero_dimension", one(shape="[1099511627776,1099511627776,0]", offsets="[0,0]"), 0)
    case(
        "overflow_wraps_to_the_right_size", one(shape="[4294967297,4294967296]", offsets="[0,4294967296]"), 0
    )
    case("f4_odd_number_of_elements", one('"F4"', "[3]", "[0,2]"), 2)
    case("f4_scalar", one('"F4"', "[]", "[0,1]"), 1)
    case("f6_five_elements", one('"F6_E2M3"', "[5]", "[0,4]"))
    case("f6_two_elements", one('"F6_E3M2"', "[2]", "[0,2]"), 2)
    case("size_one_byte_short", one(shape="[5]"))
    case("size_one_byte_long", one(shape="[3]"))
    case("size_of_another_dtype", one('"F32"', "[4]"))
    case("size_zero_for_a_scalar", one(shape="[]", offsets="[0,0]"), 0)
    case("size_four_for_no_elements", one(shape="[0]"))

    # S-15: cover.
    case("offsets_gap_at_the_start", one(offsets="[4,8]"), 8)
    case("offsets_gap_between_tensors", two("0..4", "8..12"), 12)
    case("offsets_gap_hides_a_zip_header", two("0..4", "8..12"), b"\0\0\0\0PK\x03\x04\0\0\0\0")
    case("offsets_overlap", two("0..4", "2..6"), 6)
    case("offsets_overlap_within", two("0..8", "2..4"), 8)
    case("offsets_alias", two("0..4", "0..4"), 4)
    case("offsets_same_begin", two("0..4", "0..8"), 8)
    case("zero_size_tensor_within_another", two("0..4", "2..2"), 4)
    case("zero_size_tensor_beyond_the_end", two("0..4", "8..8"), 4)
    case("offsets_counted_from_the_file", one(offsets=f"[{8 + len(GOOD)},{12 + len(GOOD)}]"))

    # S-16: the end of the file.
    case("data_cut_by_one_byte", GOOD, 3)
    case("data_missing", GOOD, 0)
    case("data_cut_in_the_second_tensor", two("0..4", "4..8"), 6)
    case("data_followed_by_one_byte", GOOD, 5)
    case("data_followed_by_a_zip_directory", GOOD, b"\0\0\0\0PK\x05\x06" + bytes(18))
    case("data_without_tensors", "{}", 4)
    case("data_of_metadata_alone", '{"__metadata__":{}}', 1)


def index() -> None:
    def good(name: str, text: str) -> None:
        add(f"accept-index/{name}.json", text.encode())

    def bad(name: str, text: str | bytes) -> None:
        add(f"reject-index/{name}.json", text.encode() if isinstance(text, str) else text)

    def path(text: str) -> str:
        return f'{{"weight_map":{{"a":"{text}"}}}}'

    shards = [f"model-{i:05}-of-00002.safetensors" for i in (1, 2)]
    whole = {"metadata": {"total_size": 12}, "weight_map": {"a": shards[0], "b": shards[1], "c": shards[0]}}
    good("as_the_hub_writes_it", json.dumps(whole, indent=2) + "\n")
    good("compact", json.dumps(whole, separators=(",", ":")))
    good("empty_map", '{"weight_map":{}}')
    good("without_metadata", path(shards[0]))
    good("metadata_null", '{"metadata":null,"weight_map":{}}')
    good("total_size_as_float", '{"metadata":{"total_size":12.0},"weight_map":{}}')
    good("total_size_as_string", '{"metadata":{"total_size":"12"},"weight_map":{}}')
    good("other_members", '{"format":"x","nested":[{"a":[1]}],"weight_map":{}}')
    good("shard_in_a_directory", path("unet/model.safetensors"))
    good("shard_named_with_dots", path("model..v1...safetensors"))
    good("shard_name_in_unicode", path("mod\u00e8le.safetensors"))
    good("tensor_named_like_metadata", '{"weight_map":{"__metadata__":"m.safetensors"}}')

    # S-30.
    bad("empty_file", "")
    bad("not_json", "model.safetensors")
    bad("array_at_the_top", "[]")
    bad("weight_map_missing", "{}")
    bad("weight_map_array", '{"weight_map":[]}')
    bad("weight_map_null", '{"weight_map":null}')
    bad("weight_map_twice", '{"weight_map":{},"weight_map":{"a":"m.safetensors"}}')
    bad("weight_map_value_number", '{"weight_map":{"a":1}}')
    bad("weight_map_value_array", '{"weight_map":{"a":["m.safetensors"]}}')
    bad("tensor_twice", '{"weight_map":{"a":"m.safetensors","a":"n.safetensors"}}')
    bad("tensor_twice_by_escape", '{"weight_map":{"a":"m.safetensors","\\u0061":"n.safetensors"}}')
    bad("trailing_comma", '{"weight_map":{"a":"m.safetensors",}}')
    bad("second_value", '{"weight_map":{}}{}')
    bad("invalid_utf8", b'{"weight_map":{"\xff":"m.safetensors"}}')
    bad("byte_order_mark", '\ufeff{"weight_map":{}}')
    bad("nested_2000_deep", '{"x":' + "[" * 2000 + "]" * 2000 + ',"weight_map":{}}')
    # S-31.
    bad("path_to_the_parent", path("../model.safetensors"))
    bad("path_to_the_parent_in_the_middle", path("a/../../model.safetensors"))
    bad("path_to_the_parent_by_escape", path("\\u002e\\u002e/model.safetensors"))
    bad("path_to_the_parent_by_backslash", path("..\\\\model.safetensors"))
    bad("path_absolute", path("/etc/passwd"))
    bad("path_with_drive", path("C:/model.safetensors"))
    bad("path_of_a_network_share", path("\\\\\\\\host\\\\share"))
    bad("path_is_a_url", path("https://example.org/model.safetensors"))
    bad("path_with_nul", path("model.safetensors\\u0000.txt"))
    bad("path_empty", path(""))
    bad("path_is_a_dot", path("."))
    bad("path_with_empty_part", path("a//model.safetensors"))
    bad("path_ends_with_slash", path("a/"))


def main() -> int:
    accept()
    lenient()
    reject()
    index()
    on_disk = {
        str(path.relative_to(HERE)): path
        for directory in DIRECTORIES
        for path in (HERE / directory).glob("*")
    }
    if sys.argv[1:] == ["--check"]:
        stale = sorted(on_disk.keys() - FILES.keys())
        wrong = [p for p, content in FILES.items() if p not in on_disk or on_disk[p].read_bytes() != content]
        for path in stale + wrong:
            print(f"{path}: not as make.py makes it", file=sys.stderr)
        return 1 if stale or wrong else 0
    for path in on_disk.keys() - FILES.keys():
        on_disk[path].unlink()
    for path, content in FILES.items():
        target = HERE / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
    print(f"{len(FILES)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
