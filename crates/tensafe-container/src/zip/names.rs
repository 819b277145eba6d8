//! What members are called: encodings, paths that are not safe, and names that stand twice.

use std::{cmp::Ordering, collections::HashMap};

use super::{
    Member, UTF8,
    entry::{Entry, fields},
    flaw::{Flaw, FlawKind, Flaws},
};
use crate::{Error, Limits, bytes::u32_at};

/// The unicode path that Info-ZIP writes; some readers prefer it to the name.
const UNICODE_PATH: u16 = 0x7075;

/// Checks one name.
pub(super) fn check(entry: &Entry<'_>, limits: &Limits, flaws: &mut Flaws) -> Result<(), Error> {
    let mut add = |kind, found: &dyn std::fmt::Display, needed: &dyn std::fmt::Display| {
        flaws.add(Flaw::new(kind, Some(&entry.name), entry.at, found, needed))
    };
    if entry.raw_name.len() as u64 > limits.name_bytes {
        let needed = format!("at most {}; `Limits::name_bytes` can raise it", limits.name_bytes);
        add(FlawKind::NameTooLong, &super::bytes(entry.raw_name.len() as u64), &needed)?;
    }
    if let Some(why) = unsafe_part(entry.raw_name) {
        add(FlawKind::UnsafeName, &why, &"a relative path")?;
    }
    if !entry.raw_name.is_ascii() {
        if entry.flags & UTF8 == 0 {
            add(FlawKind::NameNotUtf8, &"a name beyond ASCII, not marked as UTF-8", &"flag 0x0800")?;
        } else if let Err(error) = std::str::from_utf8(entry.raw_name) {
            let found = format!("a name that is UTF-8 up to byte {}", error.valid_up_to());
            add(FlawKind::NameNotUtf8, &found, &"UTF-8")?;
        }
    }
    for (_, data) in fields(entry.extra).unwrap_or_default().iter().filter(|(id, _)| *id == UNICODE_PATH) {
        // A version, a checksum of the name that it is for, and the name.
        let path = data.get(5..).unwrap_or_default();
        let current = u32_at(data, 1) == Some(crc32fast::hash(entry.raw_name)) && data.first() == Some(&1);
        if !current || path != entry.raw_name {
            let found = format!("`{}`", String::from_utf8_lossy(path).escape_debug()).to_string();
            add(FlawKind::UnicodePathDiffers, &found, &"the same name")?;
        }
    }
    Ok(())
}

/// Why a name is not safe to be taken as a path, on any platform.
fn unsafe_part(name: &[u8]) -> Option<&'static str> {
    let drive = |name: &[u8]| name.first().is_some_and(u8::is_ascii_alphabetic) && name.get(1) == Some(&b':');
    match name {
        [] => Some("no name"),
        [b'/', ..] => Some("an absolute path"),
        _ if name.contains(&b'\\') => Some("a backslash"),
        _ if name.contains(&0) => Some("a NUL"),
        _ if name.iter().any(|byte| *byte < 0x20 || *byte == 0x7f) => Some("a control character"),
        _ if drive(name) => Some("a drive"),
        _ if name.split(|byte| *byte == b'/').any(|part| part == b"..") => Some("a `..` component"),
        _ => None,
    }
}

/// The members' places by name; reports names that stand twice, or differ only in case.
pub(super) fn index(members: &[Member], flaws: &mut Flaws) -> Result<Vec<u32>, Error> {
    let mut order: Vec<u32> = (0..).take(members.len()).collect();
    let member = |at: u32| usize::try_from(at).ok().and_then(|at| members.get(at));
    let name = |at: u32| member(at).map_or("", Member::name);
    order.sort_by(|a, b| name(*a).cmp(name(*b)).then(a.cmp(b)));
    for pair in order.windows(2) {
        let [first, second] = pair else { continue };
        if let (Some(first), Some(second)) = (member(*first), member(*second))
            && first.name.cmp(&second.name) == Ordering::Equal
        {
            let found = format!("another at byte {}", first.entry_offset);
            let (kind, at) = (FlawKind::DuplicateName, second.entry_offset);
            flaws.add(Flaw::new(kind, Some(&second.name), at, found, "one"))?;
        }
    }
    let mut folded: HashMap<String, &Member> = HashMap::with_capacity(members.len());
    for member in members {
        let first = folded.entry(member.name.to_lowercase()).or_insert(member);
        if first.name != member.name {
            let found = format!("`{}`", first.name.escape_debug()).to_string();
            let (kind, at) = (FlawKind::CaseTwin, member.entry_offset);
            flaws.add(Flaw::new(kind, Some(&member.name), at, found, "names that differ otherwise"))?;
        }
    }
    Ok(order)
}
