//! The opcodes of protocols 0 to 5: the one table of bytes, names and the form of arguments.

use std::fmt;

/// What follows an opcode's byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Nothing.
    None,
    /// An unsigned integer of so many bytes, little-endian.
    Unsigned(u8),
    /// A signed integer of 4 bytes, little-endian.
    Signed,
    /// A float of 8 bytes, big-endian.
    Float,
    /// Text to the end of the line.
    Line,
    /// Two lines of text.
    TwoLines,
    /// A length, an unsigned integer of so many bytes, and as many bytes.
    Counted(u8),
    /// A length, a signed integer of 4 bytes, and as many bytes.
    SignedCounted,
}

macro_rules! opcodes {
    ($($variant:ident $byte:literal $name:literal $protocol:literal $form:expr;)*) => {
        /// An opcode.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the names are Python's; `pickletools` documents them")]
        pub enum Opcode { $($variant = $byte,)* }

        impl Opcode {
            /// Every opcode, by protocol.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The opcode that `byte` stands for.
            #[must_use]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte { $($byte => Some(Self::$variant),)* _ => None }
            }

            /// The name that Python gives it, such as `STACK_GLOBAL`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The protocol that brought it.
            #[must_use]
            pub const fn protocol(self) -> u8 {
                match self { $(Self::$variant => $protocol,)* }
            }

            /// What follows its byte.
            #[must_use]
            pub const fn form(self) -> Form {
                match self { $(Self::$variant => $form,)* }
            }
        }
    };
}

opcodes! {
    Mark            b'(' "MARK"             0 Form::None;
    Stop            b'.' "STOP"             0 Form::None;
    Pop             b'0' "POP"              0 Form::None;
    Dup             b'2' "DUP"              0 Form::None;
    Float           b'F' "FLOAT"            0 Form::Line;
    Int             b'I' "INT"              0 Form::Line;
    Long            b'L' "LONG"             0 Form::Line;
    None            b'N' "NONE"             0 Form::None;
    PersId          b'P' "PERSID"           0 Form::Line;
    Reduce          b'R' "REDUCE"           0 Form::None;
    String          b'S' "STRING"           0 Form::Line;
    Unicode         b'V' "UNICODE"          0 Form::Line;
    Append          b'a' "APPEND"           0 Form::None;
    Build           b'b' "BUILD"            0 Form::None;
    Global          b'c' "GLOBAL"           0 Form::TwoLines;
    Dict            b'd' "DICT"             0 Form::None;
    Get             b'g' "GET"              0 Form::Line;
    Inst            b'i' "INST"             0 Form::TwoLines;
    List            b'l' "LIST"             0 Form::None;
    Put             b'p' "PUT"              0 Form::Line;
    SetItem         b's' "SETITEM"          0 Form::None;
    Tuple           b't' "TUPLE"            0 Form::None;
    EmptyTuple      b')' "EMPTY_TUPLE"      1 Form::None;
    PopMark         b'1' "POP_MARK"         1 Form::None;
    BinFloat        b'G' "BINFLOAT"         1 Form::Float;
    BinInt          b'J' "BININT"           1 Form::Signed;
    BinInt1         b'K' "BININT1"          1 Form::Unsigned(1);
    BinInt2         b'M' "BININT2"          1 Form::Unsigned(2);
    BinPersId       b'Q' "BINPERSID"        1 Form::None;
    BinString       b'T' "BINSTRING"        1 Form::SignedCounted;
    ShortBinString  b'U' "SHORT_BINSTRING"  1 Form::Counted(1);
    BinUnicode      b'X' "BINUNICODE"       1 Form::Counted(4);
    EmptyList       b']' "EMPTY_LIST"       1 Form::None;
    Appends         b'e' "APPENDS"          1 Form::None;
    BinGet          b'h' "BINGET"           1 Form::Unsigned(1);
    LongBinGet      b'j' "LONG_BINGET"      1 Form::Unsigned(4);
    Obj             b'o' "OBJ"              1 Form::None;
    BinPut          b'q' "BINPUT"           1 Form::Unsigned(1);
    LongBinPut      b'r' "LONG_BINPUT"      1 Form::Unsigned(4);
    SetItems        b'u' "SETITEMS"         1 Form::None;
    EmptyDict       b'}' "EMPTY_DICT"       1 Form::None;
    Proto           0x80 "PROTO"            2 Form::Unsigned(1);
    NewObj          0x81 "NEWOBJ"           2 Form::None;
    Ext1            0x82 "EXT1"             2 Form::Unsigned(1);
    Ext2            0x83 "EXT2"             2 Form::Unsigned(2);
    Ext4            0x84 "EXT4"             2 Form::Signed;
    Tuple1          0x85 "TUPLE1"           2 Form::None;
    Tuple2          0x86 "TUPLE2"           2 Form::None;
    Tuple3          0x87 "TUPLE3"           2 Form::None;
    NewTrue         0x88 "NEWTRUE"          2 Form::None;
    NewFalse        0x89 "NEWFALSE"         2 Form::None;
    Long1           0x8a "LONG1"            2 Form::Counted(1);
    Long4           0x8b "LONG4"            2 Form::SignedCounted;
    BinBytes        b'B' "BINBYTES"         3 Form::Counted(4);
    ShortBinBytes   b'C' "SHORT_BINBYTES"   3 Form::Counted(1);
    ShortBinUnicode 0x8c "SHORT_BINUNICODE" 4 Form::Counted(1);
    BinUnicode8     0x8d "BINUNICODE8"      4 Form::Counted(8);
    BinBytes8       0x8e "BINBYTES8"        4 Form::Counted(8);
    EmptySet        0x8f "EMPTY_SET"        4 Form::None;
    AddItems        0x90 "ADDITEMS"         4 Form::None;
    FrozenSet       0x91 "FROZENSET"        4 Form::None;
    NewObjEx        0x92 "NEWOBJ_EX"        4 Form::None;
    StackGlobal     0x93 "STACK_GLOBAL"     4 Form::None;
    Memoize         0x94 "MEMOIZE"          4 Form::None;
    Frame           0x95 "FRAME"            4 Form::Unsigned(8);
    ByteArray8      0x96 "BYTEARRAY8"       5 Form::Counted(8);
    NextBuffer      0x97 "NEXT_BUFFER"      5 Form::None;
    ReadonlyBuffer  0x98 "READONLY_BUFFER"  5 Form::None;
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
