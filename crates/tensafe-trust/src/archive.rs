//! Archives: what is wrong with them as archives, and each of their members.
//!
//! The members that hold tensors of a torch file are not read; their first bytes are looked at.

mod layout;

use tensafe_container::{CrcState, FlawKind, Member, Tar, TarEntry, TarFlawKind, TarKind, Zip};
use tensafe_pickle::{numbered_storages, numbered_tensors};

use self::layout::{Layout, last};
use crate::{
    Finding, Level, Rule,
    input::Input,
    nested, pickle,
    preview::named,
    scan::{Place, Scan},
    sequence, text,
};

/// Scans a zip archive and returns the word for the kind.
pub(crate) fn zip(
    name: &str,
    input: &Input,
    head: &[u8],
    place: Place<'_>,
    scan: &mut Scan<'_>,
) -> &'static str {
    if !head.starts_with(b"PK") {
        let text = "other bytes stand before the zip archive, for readers that begin at the start";
        scan.add(place, Finding::new(Rule::Polyglot, text));
    }
    let zip = match Zip::survey(input.source(), &scan.container_limits()) {
        Ok(zip) => zip,
        Err(error) => {
            scan.refused(&error, place);
            nested::search_range(input, &(0..input.len()), place, scan);
            return "zip";
        }
    };
    for flaw in zip.flaws() {
        let finding = Finding::new(rule_of(flaw.kind()), flaw.to_string()).at(flaw.offset());
        scan.add(place, finding);
    }
    if zip.flaws_left_out() > 0 {
        let text = format!("{} more flaws of the archive are not told", zip.flaws_left_out());
        scan.add(place, Finding::new(Rule::LimitMet, text));
    }
    let layout = Layout::of(&zip);
    if zip.members().is_empty() {
        scan.add(place, Finding::new(Rule::UnknownFormat, "the archive is empty"));
    }
    if layout.roots > 1 {
        scan.add(place, Finding::new(Rule::ArchiveDeceives, "more than one member is called `data.pkl`"));
    }
    if layout.script {
        scan.add(place, Finding::new(Rule::TorchScript, "the archive holds TorchScript"));
    }
    if layout.roots > 0 && !zip.members().iter().any(|member| last(member.name()) == "version") {
        scan.add(place, Finding::new(Rule::ArchiveFlaw, "a torch archive without the member `version`"));
    }
    members(&zip, input, &layout, place, scan);
    slack(&zip, input, place, scan);
    match () {
        () if layout.script => "torchscript",
        () if layout.roots > 0 => "torch",
        () if layout.arrays => "npz",
        () if text::ending(name) == "keras" => "keras",
        () => "zip",
    }
}

fn rule_of(kind: FlawKind) -> Rule {
    match kind {
        FlawKind::Encrypted => Rule::Encrypted,
        FlawKind::UnsafeName => Rule::MemberPath,
        FlawKind::UnknownMethod | FlawKind::NewerVersion | FlawKind::MultiDisk => Rule::UnreadFormat,
        FlawKind::Ratio | FlawKind::TooManyMembers | FlawKind::NameTooLong => Rule::LimitMet,
        FlawKind::Prefix | FlawKind::Suffix => Rule::Polyglot,
        FlawKind::DirectoryEndsEarly | FlawKind::LocalHeaderMissing | FlawKind::MemberOutside => {
            Rule::BrokenArchive
        }
        FlawKind::NameNotUtf8 | FlawKind::ExtraField => Rule::ArchiveFlaw,
        kind if kind.grave() => Rule::ArchiveDeceives,
        _ => Rule::ArchiveFlaw,
    }
}

/// Members may lie over each other: all together are no more than a few times the archive.
const MOST_OVERLAP: u64 = 4;

fn members(zip: &Zip, input: &Input, layout: &Layout, place: Place<'_>, scan: &mut Scan<'_>) {
    let mut left = input.len().saturating_mul(MOST_OVERLAP);
    for member in zip.members().iter().filter(|member| !member.is_directory()) {
        match left.checked_sub(member.compressed_bytes()) {
            Some(rest) => left = rest,
            None => {
                let text = "members that lie over each other were not all read";
                return scan.add(place, Finding::new(Rule::LimitMet, text));
            }
        }
        zip_member(zip, member, input, layout, place, scan);
    }
}

fn zip_member(
    zip: &Zip,
    member: &Member,
    file: &Input,
    layout: &Layout,
    place: Place<'_>,
    scan: &mut Scan<'_>,
) {
    if scan.options.crc {
        checksum(zip, member, place, scan);
    }
    let name = member.name();
    if layout.script && name.contains("/code/") && text::ending(name) == "py" {
        return;
    }
    // torch stores the memory of tensors as it is: what is compressed is somebody else's.
    let storage = layout.is_storage(name) && member.is_stored();
    let source = match zip.read(member) {
        Ok(source) => source,
        Err(error) => {
            // A loader that passes over what is wrong reads what stands there.
            nested::search_range(file, &member.range(), place, scan);
            return scan.refused(&error, Place { member: Some(&place.path(name)) });
        }
    };
    if !member.is_stored() {
        scan.spend_unpacked(source.len());
    }
    if storage {
        let input = Input::of_source(source);
        let range = 0..input.len();
        return nested::far(&input, &range, Place { member: Some(&place.path(name)) }, scan);
    }
    let input = match Input::new(source) {
        Ok(input) => input,
        Err(error) => return scan.unread(&error, Place { member: Some(&place.path(name)) }),
    };
    match last(name) {
        "data.pkl" if layout.roots > 0 => {
            let kind = scan.member_with(name, &input, place, layout.storages(name));
            if kind != "pickle" {
                let text = format!("`data.pkl` is no pickle, but {kind}");
                scan.add(place, Finding::new(Rule::ArchiveDeceives, text));
            }
        }
        "version" | "byteorder" if layout.roots > 0 => about_torch(name, &input, place, scan),
        _ => _ = scan.member_input(name, &input, place),
    }
}

/// The small texts beside `data.pkl`.
fn about_torch(name: &str, input: &Input, place: Place<'_>, scan: &mut Scan<'_>) {
    let bytes = input.head(64).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let fits = match last(name) {
        "byteorder" => text == "little",
        _ => {
            let digits = text.trim_end();
            digits.len() <= 3 && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
        }
    };
    if !fits {
        let big = text == "big";
        let finding = Finding::new(Rule::ArchiveFlaw, format!("{} says {}", named(name), named(&text)));
        scan.add(place, if big { finding.leveled(Level::Note) } else { finding });
    }
}

/// What lies between the members and behind them, where no reader of members looks.
fn slack(zip: &Zip, input: &Input, place: Place<'_>, scan: &mut Scan<'_>) {
    let mut members: Vec<_> =
        zip.members().iter().map(Member::range).filter(|range| !range.is_empty()).collect();
    members.sort_by_key(|range| range.start);
    let mut at = 0;
    for range in members {
        if range.start > at {
            nested::search_range(input, &(at..range.start), place, scan);
        }
        at = at.max(range.end);
    }
    nested::search_range(input, &(at..input.len()), place, scan);
}

fn checksum(zip: &Zip, member: &Member, place: Place<'_>, scan: &mut Scan<'_>) {
    let path = place.path(member.name());
    match zip.check_crc(member) {
        Ok(CrcState::Differs { found, needed }) => {
            let text = format!("the checksum is {found:08x}, the archive says {needed:08x}");
            scan.add(Place { member: Some(&path) }, Finding::new(Rule::BadChecksum, text));
        }
        Ok(_) => {}
        Err(error) => scan.refused(&error, Place { member: Some(&path) }),
    }
}

/// Scans a tar archive and returns the word for the kind.
pub(crate) fn tar(input: &Input, place: Place<'_>, scan: &mut Scan<'_>) -> &'static str {
    let tar = match Tar::open(input.source(), &scan.container_limits()) {
        Ok(tar) => tar,
        Err(error) => {
            scan.refused(&error, place);
            nested::search_range(input, &(0..input.len()), place, scan);
            return "tar";
        }
    };
    for flaw in tar.flaws() {
        let rule = match flaw.kind() {
            TarFlawKind::UnsafeName => Rule::MemberPath,
            TarFlawKind::DuplicateName | TarFlawKind::SizeDiffers => Rule::ArchiveDeceives,
            TarFlawKind::TrailingBytes => Rule::Polyglot,
            _ => Rule::ArchiveFlaw,
        };
        scan.add(place, Finding::new(rule, flaw.to_string()).at(flaw.offset()));
    }
    let of_torch = ["pickle", "storages", "tensors"].iter().all(|name| tar.find(name).is_some());
    for entry in tar.entries() {
        tar_entry(&tar, entry, of_torch, place, scan);
    }
    if of_torch { "torch-tar" } else { "tar" }
}

fn tar_entry(tar: &Tar, entry: &TarEntry, of_torch: bool, place: Place<'_>, scan: &mut Scan<'_>) {
    match entry.kind() {
        TarKind::File => {}
        TarKind::Directory => return,
        kind => {
            let what = if kind == TarKind::Link { "a link" } else { "no file" };
            let text = format!("the entry {} is {what}", named(entry.name()));
            scan.add(place, Finding::new(Rule::ArchiveFlaw, text).at(entry.header_offset()));
            return;
        }
    }
    let path = place.path(entry.name());
    let inner = Place { member: Some(&path) };
    let source = match tar.read(entry) {
        Ok(source) => source,
        Err(error) => {
            scan.refused(&error, inner);
            return;
        }
    };
    match (entry.name(), Input::new(source)) {
        (_, Err(error)) => scan.unread(&error, inner),
        (name @ ("storages" | "tensors"), Ok(input)) if of_torch => numbered(name, &input, inner, scan),
        ("pickle", Ok(input)) if of_torch => {
            scan.numbered = true;
            sequence::scan(&input, 0, inner, scan);
            scan.numbered = false;
        }
        (name, Ok(input)) => _ = scan.member_input(name, &input, place),
    }
}

/// The pickles between the bytes of storages and tensors of a torch tar.
fn numbered(name: &str, input: &Input, place: Place<'_>, scan: &mut Scan<'_>) {
    let limits = scan.options.limits.pickle;
    let pickles = if name == "storages" {
        numbered_storages(input.stream(), &limits).map(|(_, pickles)| pickles)
    } else {
        numbered_tensors(input.stream(), &limits).map(|(_, pickles)| pickles)
    };
    match pickles {
        Ok(pickles) => {
            for found in &pickles {
                pickle::judge_evaluated(input, found, place, scan);
            }
        }
        Err(error) => {
            scan.add(place, Finding::new(Rule::Broken, error.to_string()).at(error.offset()));
            // What was lost with the error is judged as plain pickles.
            sequence::scan(input, 0, place, scan);
        }
    }
}
