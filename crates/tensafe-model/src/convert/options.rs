//! What a conversion is asked for.

use std::collections::BTreeMap;

use tensafe_format::Dtype;

use crate::{Error, PickledOptions, cast::CASTABLE};

/// Choices of a conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConvertOptions {
    /// How the checkpoint is read.
    pub read: PickledOptions,
    /// Patterns with `*` and `?`: names that match one of them are taken. None takes all.
    pub select: Vec<String>,
    /// Patterns of names that are left out.
    pub exclude: Vec<String>,
    /// Regular expressions and what stands in place of their first match in a name, one after the
    /// other; `$1` is a group.
    pub rename: Vec<(String, String)>,
    /// What floats of 16, 32 and 64 bits are cast to; `None` leaves them, but for those of ZeRO's
    /// parts, which become `F32`.
    pub dtype: Option<Dtype>,
    /// Bytes of tensors that one shard holds at most.
    pub max_shard_bytes: Option<u64>,
    /// Whether names that share a tensor each get a copy, instead of being told in the metadata.
    pub duplicate: bool,
    /// Text that goes into the metadata.
    pub metadata: BTreeMap<String, String>,
    /// Whether the files are on the disk when the call returns.
    pub durable: bool,
    /// Whether files that are there may be replaced.
    pub overwrite: bool,
}

impl Default for ConvertOptions {
    fn default() -> Self {
        Self {
            read: PickledOptions::default(),
            select: Vec::new(),
            exclude: Vec::new(),
            rename: Vec::new(),
            dtype: None,
            max_shard_bytes: None,
            duplicate: false,
            metadata: BTreeMap::new(),
            durable: true,
            overwrite: false,
        }
    }
}

/// The patterns of the options, compiled.
pub(super) struct Names {
    select: Vec<glob::Pattern>,
    exclude: Vec<glob::Pattern>,
    rename: Vec<(regex::Regex, String)>,
}

impl Names {
    pub(super) fn new(options: &ConvertOptions) -> Result<Self, Error> {
        let patterns = |texts: &[String]| -> Result<Vec<_>, Error> {
            texts
                .iter()
                .map(|text| {
                    glob::Pattern::new(text).map_err(|e| Error::option("a pattern of names", text, e.msg))
                })
                .collect()
        };
        let rename = options.rename.iter().map(|(from, to)| {
            let regex = regex::Regex::new(from);
            let regex = regex.map_err(|e| {
                // The lines before show the expression again.
                let text = e.to_string();
                let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                Error::option("a regular expression", from, why)
            })?;
            Ok((regex, to.clone()))
        });
        if let Some(dtype) = options.dtype.filter(|dtype| !CASTABLE.contains(dtype)) {
            return Err(Error::option("a dtype to cast to", dtype.name(), "needed F64, F32, F16 or BF16"));
        }
        Ok(Self {
            select: patterns(&options.select)?,
            exclude: patterns(&options.exclude)?,
            rename: rename.collect::<Result<_, Error>>()?,
        })
    }

    pub(super) fn takes(&self, name: &str) -> bool {
        let any = |patterns: &[glob::Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        (self.select.is_empty() || any(&self.select)) && !any(&self.exclude)
    }

    pub(super) fn renamed(&self, name: &str) -> String {
        self.rename
            .iter()
            .fold(name.to_owned(), |name, (from, to)| from.replace(&name, to.as_str()).into_owned())
    }
}

/// A size as the Hub writes it: `"5GB"` (decimal), `"512MiB"` (binary), or bytes.
///
/// # Errors
/// [`Usage`](crate::ErrorKind::Usage) where the text is none.
pub fn parse_size(text: &str) -> Result<u64, Error> {
    let failed =
        || Error::option("a size", text, "needed a number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB");
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let number: u64 = number.parse().map_err(|_| failed())?;
    let factor = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KIB" => 1 << 10,
        "MIB" => 1 << 20,
        "GIB" => 1 << 30,
        "TIB" => 1 << 40,
        _ => return Err(failed()),
    };
    number.checked_mul(factor).filter(|bytes| *bytes > 0).ok_or_else(failed)
}
