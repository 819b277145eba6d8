//! What is wrong with an archive: the one table of kinds, and the list that a survey fills.

use std::{fmt, ops::Range};

use crate::Error;

macro_rules! flaws {
    ($($(#[doc = $doc:literal])+ $variant:ident $grave:literal $text:literal;)*) => {
        /// What is wrong, as a kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum FlawKind { $($(#[doc = $doc])+ $variant,)* }

        impl FlawKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Whether [`Zip::open`](crate::Zip::open) refuses an archive for it: two readers may
            /// see different members or bytes, or what is there cannot be read.
            #[must_use]
            pub const fn grave(self) -> bool {
                match self { $(Self::$variant => $grave,)* }
            }

            /// What is wrong, in words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

flaws! {
    /// A member is called otherwise in its local header than in the directory.
    NameDiffers true "local header and directory differ in the name";
    /// The compression method is not the same in the local header and in the directory.
    MethodDiffers true "local header and directory differ in the method";
    /// The flags are not the same in the local header and in the directory.
    FlagsDiffer true "local header and directory differ in the flags";
    /// The sizes are not the same in the local header and in the directory.
    SizesDiffer true "local header and directory differ in the sizes";
    /// The checksum is not the same in the local header and in the directory.
    CrcDiffers true "local header and directory differ in the checksum";
    /// The flags say that the bytes are encrypted.
    Encrypted true "the member is encrypted";
    /// The flags have bits that readers refuse, or treat each in its own way.
    UnknownFlags true "unknown flags";
    /// Two members have one name.
    DuplicateName true "the name stands twice";
    /// Two names differ in nothing but the case of letters. A reader that looks names up without
    /// regard to case, as miniz does unless it is told otherwise, takes either.
    CaseTwin false "the name differs from another only in case";
    /// Two members, or a member and the directory, share bytes.
    Overlap true "members overlap";
    /// Bytes that belong to nothing hold the signature of a local header.
    HiddenMember true "a local header that the directory does not name";
    /// Bytes that belong to nothing.
    Gap false "bytes that belong to no member";
    /// Bytes before the first member.
    Prefix true "bytes before the first member";
    /// Bytes behind the end record.
    Suffix true "bytes behind the end record";
    /// The comment is shorter than the end record says.
    CommentEndsEarly true "the comment ends early";
    /// More than one record fits as the end of the archive.
    SeveralEndRecords true "several end records";
    /// The archive's comment holds the signature of an end record.
    CommentEndRecord true "the comment holds an end record";
    /// The records of zip64 and those that they extend do not agree, or are not where they say.
    Zip64Differs true "the zip64 records disagree";
    /// The archive is part of a set.
    MultiDisk true "the archive spans disks";
    /// The name leads out of the directory that a member would be extracted to, or holds characters
    /// that readers treat each in its own way.
    UnsafeName true "the name is not safe";
    /// The name is not ASCII and not marked as UTF-8, or marked and not UTF-8.
    NameNotUtf8 true "the name is not UTF-8";
    /// An extra field gives the member another name.
    UnicodePathDiffers true "the unicode path is another name";
    /// An extra field does not fit the extra fields' length.
    ExtraField true "the extra fields are not well formed";
    /// A compression method other than stored and deflated.
    UnknownMethod true "unknown compression method";
    /// The sizes of a stored member differ.
    StoredSizes true "a stored member has two sizes";
    /// The record behind the bytes of a member does not say what the directory says.
    DescriptorDiffers true "the data descriptor disagrees with the directory";
    /// A data descriptor is announced, and there is no room for one.
    DescriptorMissing false "the data descriptor is missing";
    /// The member would become more bytes than [`Limits`](crate::Limits) allow.
    Ratio true "the member grows beyond the limits";
    /// The directory's entries break off.
    DirectoryEndsEarly true "the directory ends early";
    /// The directory has not as many entries as the end record says.
    DirectoryCount true "the number of members differs";
    /// The directory is not where the end record says.
    DirectoryPlace true "the directory is not where the end record says";
    /// More members than [`Limits`](crate::Limits) allow; the rest was not looked at.
    TooManyMembers true "too many members";
    /// A name longer than [`Limits`](crate::Limits) allow.
    NameTooLong true "the name is too long";
    /// A reader of a later version is asked for.
    NewerVersion true "a newer version is needed";
    /// There is no local header where the directory says.
    LocalHeaderMissing true "no local header";
    /// The bytes of a member reach beyond the archive.
    MemberOutside true "the member reaches beyond the archive";
    /// The member is a symbolic link: its bytes are the path of another file.
    SymbolicLink false "a symbolic link";
    /// A directory's member has bytes.
    DirectoryWithBytes false "a directory holds bytes";
}

/// Something wrong with an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    kind: FlawKind,
    member: Option<Box<str>>,
    offset: u64,
    found: Box<str>,
    needed: Box<str>,
}

impl Flaw {
    #[cold]
    pub(super) fn new(
        kind: FlawKind,
        member: Option<&str>,
        offset: u64,
        found: impl fmt::Display,
        needed: impl fmt::Display,
    ) -> Self {
        let text = |text: &dyn fmt::Display| cut(&text.to_string()).into();
        let member = member.map(|member| cut(member).into());
        Self { kind, member, offset, found: text(&found), needed: text(&needed) }
    }

    /// What is wrong, as a kind.
    #[must_use]
    pub fn kind(&self) -> FlawKind {
        self.kind
    }

    /// Whether [`Zip::open`](crate::Zip::open) refuses an archive for it.
    #[must_use]
    pub fn grave(&self) -> bool {
        self.kind.grave()
    }

    /// The member, as the directory calls it, or the first 1000 characters of that; `None` where the
    /// archive as a whole is meant.
    #[must_use]
    pub fn member(&self) -> Option<&str> {
        self.member.as_deref()
    }

    /// The first byte of the record that is wrong.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What was found.
    #[must_use]
    pub fn found(&self) -> &str {
        &self.found
    }

    /// What was needed.
    #[must_use]
    pub fn needed(&self) -> &str {
        &self.needed
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.member {
            Some(member) => write!(f, "zip member `{}` at byte {}: ", member.escape_debug(), self.offset)?,
            None => write!(f, "zip archive at byte {}: ", self.offset)?,
        }
        write!(f, "{}: found {}, needed {}", self.kind.text(), self.found, self.needed)
    }
}

/// A text of bounded length: names are as long as an archive likes, and may have a flaw each.
fn cut(text: &str) -> &str {
    const MOST: usize = 1000;
    let end = text.char_indices().map(|(at, _)| at).nth(MOST).unwrap_or(text.len());
    text.get(..end).unwrap_or(text)
}

/// The flaws of an archive as they are found.
#[derive(Debug)]
pub(super) struct Flaws {
    list: Vec<Flaw>,
    strict: bool,
    warnings: usize,
    left_out: u64,
    unaccounted: Vec<Range<u64>>,
}

impl Flaws {
    /// Most flaws of each weight that are kept: an archive of a million members may have many.
    const MOST: usize = 10_000;

    /// With `strict`, the first grave flaw becomes an error.
    pub(super) fn new(strict: bool) -> Self {
        Self { list: Vec::new(), strict, warnings: 0, left_out: 0, unaccounted: Vec::new() }
    }

    pub(super) fn add(&mut self, flaw: Flaw) -> Result<(), Error> {
        let grave = flaw.grave();
        if grave && self.strict {
            return Err(Error::flaw(flaw));
        }
        let of_this_weight =
            if grave { self.list.len().saturating_sub(self.warnings) } else { self.warnings };
        if of_this_weight >= Self::MOST {
            self.left_out = self.left_out.saturating_add(1);
            return Ok(());
        }
        self.warnings = self.warnings.saturating_add(usize::from(!grave));
        self.list.push(flaw);
        Ok(())
    }

    /// Notes bytes that belong to nothing, which are a flaw as well.
    pub(super) fn unaccounted(&mut self, range: Range<u64>) {
        self.unaccounted.push(range);
    }

    pub(super) fn into_parts(self) -> (Vec<Flaw>, u64, Vec<Range<u64>>) {
        (self.list, self.left_out, self.unaccounted)
    }
}
