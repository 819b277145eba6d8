//! A model in several files: the index `model.safetensors.index.json` and the names of shards,
//! by the Hub's conventions. Rules S-30 to S-33.

use alloc::{borrow::ToOwned, collections::BTreeMap, format, string::String, vec::Vec};
use core::fmt::Write as _;

use crate::{
    error::{Detail, Error},
    header::Reader,
    layout::push_json_string,
};

/// Which file of a model holds which tensor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardIndex {
    /// From the name of a tensor to the name of its file, relative to the index.
    pub weight_map: BTreeMap<String, String>,
    /// Bytes of all tensors, if the index says so. A claim: the shards decide.
    pub total_size: Option<u64>,
    /// What else a writer puts into the index's metadata: text by name. Readers do not ask for it.
    pub metadata: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Parses the text of an index.
    ///
    /// # Errors
    /// [`Format`](crate::ErrorKind::Format) where it is not JSON, has not one `weight_map` of strings,
    /// names a tensor twice, or names a file by anything but a plain relative path: an index is
    /// data of a stranger and must not reach outside of its directory.
    ///
    /// Spec: S-30, S-31.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let needed = "an object with a `weight_map`";
        let mut json = Reader::new(text, 0)?;
        json.skip_space();
        if json.peek() != Some(b'{') {
            return Err(Error::new(Detail::IndexJson { found: "the text is no object", needed }));
        }
        let mut index = Self::default();
        let mut has_map = false;
        let mut members = json.begin(b'{');
        while json.more(&mut members, b'}', "`,` or `}`")? {
            let key = json.string()?;
            json.expect(b':', "`:`")?;
            match &*key {
                // Of two maps, readers differ over which one counts.
                "weight_map" if has_map => {
                    let found = "`weight_map` stands again";
                    return Err(Error::new(Detail::IndexJson { found, needed }));
                }
                "weight_map" => {
                    has_map = true;
                    index.read_map(&mut json)?;
                }
                "metadata" => index.read_metadata(&mut json)?,
                _ => json.skip_value(2)?,
            }
        }
        json.end()?;
        if has_map {
            Ok(index)
        } else {
            Err(Error::new(Detail::IndexJson { found: "`weight_map` is missing", needed }))
        }
    }

    fn read_map(&mut self, json: &mut Reader<'_>) -> Result<(), Error> {
        json.skip_space();
        if json.peek() != Some(b'{') {
            let found = "`weight_map` is no object";
            return Err(Error::new(Detail::IndexJson { found, needed: "tensor names and file names" }));
        }
        let mut members = json.begin(b'{');
        while json.more(&mut members, b'}', "`,` or `}`")? {
            let name = json.string()?.into_owned();
            json.expect(b':', "`:`")?;
            json.skip_space();
            if json.peek() != Some(b'"') {
                let found = "a value of `weight_map` is no string";
                return Err(Error::new(Detail::IndexJson { found, needed: "a file name" }));
            }
            let file = json.string()?.into_owned();
            check_path(&file)?;
            if self.weight_map.insert(name.clone(), file).is_some() {
                return Err(Error::new(Detail::IndexTensorTwice { name }));
            }
        }
        Ok(())
    }

    fn read_metadata(&mut self, json: &mut Reader<'_>) -> Result<(), Error> {
        json.skip_space();
        if json.peek() != Some(b'{') {
            return json.skip_value(2);
        }
        let mut members = json.begin(b'{');
        while json.more(&mut members, b'}', "`,` or `}`")? {
            let key = json.string()?;
            json.expect(b':', "`:`")?;
            json.skip_space();
            match json.integer() {
                Some(size) if key == "total_size" => self.total_size = Some(size),
                Some(_) => {}
                None => json.skip_value(3)?,
            }
        }
        Ok(())
    }

    /// The files of the model, each once, in the order of their names.
    #[must_use]
    pub fn files(&self) -> Vec<&str> {
        let mut files: Vec<&str> = self.weight_map.values().map(String::as_str).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    /// Renders the index as transformers does: two spaces of indentation, keys sorted, a last line feed.
    ///
    /// Spec: S-30.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = String::from("{\n  \"metadata\": {");
        let mut size = self.total_size;
        let mut written = 0usize;
        let mut push_size = |json: &mut String, written: &mut usize| {
            if let Some(size) = size.take() {
                json.push_str(if *written > 0 { ",\n    " } else { "\n    " });
                write!(json, "\"total_size\": {size}").expect("a String takes every write");
                *written += 1;
            }
        };
        for (key, value) in self.metadata.iter().filter(|(key, _)| *key != "total_size") {
            if key.as_str() > "total_size" {
                push_size(&mut json, &mut written);
            }
            json.push_str(if written > 0 { ",\n    " } else { "\n    " });
            push_json_string(&mut json, key);
            json.push_str(": ");
            push_json_string(&mut json, value);
            written += 1;
        }
        push_size(&mut json, &mut written);
        json.push_str(if written > 0 { "\n  },\n  \"weight_map\": {" } else { "},\n  \"weight_map\": {" });
        for (i, (name, file)) in self.weight_map.iter().enumerate() {
            json.push_str(if i > 0 { ",\n    " } else { "\n    " });
            push_json_string(&mut json, name);
            json.push_str(": ");
            push_json_string(&mut json, file);
        }
        json.push_str(if self.weight_map.is_empty() { "}\n}\n" } else { "\n  }\n}\n" });
        json
    }
}

/// S-31.
fn check_path(path: &str) -> Result<(), Error> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let why = if path.contains('\0') {
        "holds a NUL"
    } else if path.contains('\\') || path.contains(':') {
        "holds a backslash or a colon"
    } else if path.starts_with('/') {
        "is absolute"
    } else if !path.split('/').all(plain) {
        "holds an empty, `.` or `..` part"
    } else {
        return Ok(());
    };
    Err(Error::new(Detail::ShardPath { path: path.to_owned(), why }))
}

/// The name of shard `number` (from 1) of `count`, after the name of the whole: the number goes
/// before the extension, in at least five digits.
///
/// ```
/// assert_eq!(tensafe_format::shard_name("model.safetensors", 2, 4), "model-00002-of-00004.safetensors");
/// assert_eq!(tensafe_format::shard_name("model.safetensors", 1, 1), "model.safetensors");
/// ```
///
/// Spec: S-33.
#[must_use]
pub fn shard_name(whole: &str, number: usize, count: usize) -> String {
    if count == 1 {
        return whole.to_owned();
    }
    let (stem, extension) = whole.rsplit_once('.').unwrap_or((whole, ""));
    let dot = if extension.is_empty() { "" } else { "." };
    format!("{stem}-{number:05}-of-{count:05}{dot}{extension}")
}

/// Whether `name` is one that the Hub takes for a shard: `…-00001-of-00002.safetensors`.
///
/// Spec: S-33.
#[must_use]
pub fn is_hub_shard_name(name: &str) -> bool {
    let digits = |text: &str| matches!(text.len(), 5 | 6) && text.bytes().all(|b| b.is_ascii_digit());
    let parts = name.strip_suffix(".safetensors").and_then(|stem| stem.rsplit_once("-of-"));
    let number = parts.and_then(|(before, count)| {
        let (_, number) = before.rsplit_once(['-', '_'])?;
        Some(digits(count) && digits(number))
    });
    number.unwrap_or(false)
}

/// Distributes tensors of the given sizes, in bytes, over shards: in order, each shard filled
/// until the next tensor would take it over `most_bytes`; a tensor that is larger stands alone,
/// and those after it go on filling the shard before it. The result lists the places of the
/// tensors in each shard.
///
/// Spec: S-33.
#[must_use]
pub fn split_into_shards(sizes: &[u64], most_bytes: u64) -> Vec<Vec<usize>> {
    let mut shards = Vec::new();
    let mut current = Vec::new();
    let mut filled = 0u64;
    for (place, size) in sizes.iter().enumerate() {
        if *size > most_bytes {
            shards.push(Vec::from([place]));
            continue;
        }
        if filled.saturating_add(*size) > most_bytes {
            shards.push(core::mem::take(&mut current));
            filled = 0;
        }
        current.push(place);
        filled = filled.saturating_add(*size);
    }
    if !current.is_empty() {
        shards.push(current);
    }
    shards
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec};

    use alloc::collections::BTreeMap;

    use super::{ShardIndex, is_hub_shard_name, shard_name, split_into_shards};
    use crate::Rule;

    #[test]
    fn reads_what_it_writes() {
        let index = ShardIndex {
            weight_map: [("a", "x-00001-of-00002.safetensors"), ("b", "x-00002-of-00002.safetensors")]
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .into(),
            total_size: Some(12),
            metadata: BTreeMap::new(),
        };
        let json = index.to_json();
        assert_eq!(ShardIndex::parse(json.as_bytes()).unwrap(), index);
        let theirs: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(theirs["metadata"]["total_size"], 12);
        assert_eq!(
            ShardIndex::parse(ShardIndex::default().to_json().as_bytes()).unwrap(),
            ShardIndex::default()
        );
    }

    #[test]
    fn refuses_paths_that_leave_the_directory() {
        for path in ["../x", "/etc/passwd", "a/../b", "", "a//b", "./a", "c:x", "a\\\\b", "a\\u0000b"] {
            let json = alloc::format!(r#"{{"weight_map":{{"t":"{path}"}}}}"#);
            let error = ShardIndex::parse(json.as_bytes()).unwrap_err();
            assert_eq!(error.rule(), Some(Rule::SHARD_PATH), "{error}");
        }
        assert!(ShardIndex::parse(br#"{"weight_map":{"t":"unet/a.safetensors"}}"#).is_ok());
    }

    #[test]
    fn refuses_an_index_without_a_map_or_with_a_tensor_twice() {
        for json in [
            "[]",
            "{}",
            r#"{"weight_map":[]}"#,
            r#"{"weight_map":{"a":1}}"#,
            r#"{"weight_map":{"a":"x","a":"y"}}"#,
        ] {
            let error = ShardIndex::parse(json.as_bytes()).unwrap_err();
            assert_eq!(error.rule(), Some(Rule::INDEX), "{error}");
        }
    }

    #[test]
    fn names_shards_as_the_hub_does() {
        assert!(is_hub_shard_name(&shard_name("model.fp16.safetensors", 3, 12)));
        assert_eq!(shard_name("model", 1, 2), "model-00001-of-00002");
        for other in ["model.safetensors", "a-1-of-2.safetensors", "a-00001-of-00002.bin"] {
            assert!(!is_hub_shard_name(other), "{other}");
        }
    }

    #[test]
    fn fills_shards_in_order() {
        assert_eq!(split_into_shards(&[4, 4, 4], 8), vec![vec![0, 1], vec![2]]);
        assert_eq!(split_into_shards(&[4, 100, 4], 8), vec![vec![1], vec![0, 2]]);
        assert!(split_into_shards(&[], 8).is_empty());
    }
}
