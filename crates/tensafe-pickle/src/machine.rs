//! The machine: a stack, marks, a memo, and an arena of values. It knows no name and calls nothing.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use std::borrow::Cow;

use crate::{
    Argument, Behind, Decoder, Dialect, Id, Instruction, Limits, Made, Object, Opcode, Pickle, Spellings,
    Stream, Symbol, SymbolUse, Value,
    error::{Detail, Error},
    literal::{number, text, utf8},
    meaning::{Announced, Arena},
    names::python3_name,
};

/// Protocols up to this one name globals as Python 2 did.
const PYTHON2_PROTOCOL: u64 = 2;

/// Follows the pickle at the start of `bytes` to its STOP, or to where it breaks.
///
/// Never fails and never calls: an error is part of the result, beside everything that was built
/// before it, so that a payload before a broken end is still seen.
///
/// # Cost
/// One pass. Memory within the limits, and of the order of the instructions: strings and bytes are
/// borrowed from `bytes`, what stands twice is stored once.
#[must_use]
pub fn evaluate<'a>(bytes: &'a [u8], limits: &Limits) -> Pickle<'a> {
    evaluate_stream(bytes, 0, Dialect::Plain, limits)
}

/// Follows the pickle that begins at byte `at` of a stream, as [`evaluate`] does.
///
/// # Cost
/// One pass, each byte is read once; bytes that stay where they are (see [`Stream::near_bytes`]) are
/// not read.
#[must_use]
pub fn evaluate_stream<'a>(
    stream: impl Stream<'a>,
    at: u64,
    dialect: Dialect,
    limits: &Limits,
) -> Pickle<'a> {
    let mut decoder = Decoder::starting_at(stream, at);
    let mut machine = Machine {
        limits,
        dialect,
        values: Vec::new(),
        stack: Stack::default(),
        symbols: Vec::new(),
        protocol: 0,
        spellings: Spellings::default(),
        operations: 0,
        spent: 0,
    };
    let (root, error) = match machine.run(&mut decoder) {
        Ok(root) => (root, None),
        Err(error) => (None, Some(error)),
    };
    Pickle {
        values: machine.values,
        root,
        symbols: machine.symbols,
        error,
        range: at..decoder.offset(),
        leftover: machine.stack.values.len(),
        protocol: u8::try_from(machine.protocol).unwrap_or_default(),
        spellings: machine.spellings,
    }
}

struct Machine<'a, 'l> {
    limits: &'l Limits,
    dialect: Dialect,
    values: Vec<Value<'a>>,
    stack: Stack,
    symbols: Vec<SymbolUse>,
    protocol: u64,
    spellings: Spellings,
    operations: u64,
    spent: u64,
}

/// What a pickle within another has of its own.
#[derive(Default)]
struct Stack {
    values: Vec<Id>,
    /// Heights of the stack at the marks that are open.
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
    /// Entries of the memo that are filled: MEMOIZE counts them, as Python does.
    memoized: usize,
}

impl<'a> Machine<'a, '_> {
    /// Follows a pickle to its STOP.
    fn run<S: Stream<'a>>(&mut self, decoder: &mut Decoder<'a, S>) -> Result<Option<Id>, Error> {
        let mut root = None;
        while let Some(instruction) = decoder.next_instruction()? {
            let (offset, opcode) = (instruction.offset, instruction.opcode);
            let failed = |detail| Error::new(offset, Some(opcode), detail);
            root = self.step(instruction).map_err(failed)?.or(root);
            if opcode == Opcode::Build && self.dialect == Dialect::Joblib {
                self.array_behind(decoder, offset)?;
            }
        }
        Ok(root)
    }

    /// joblib writes the bytes of an array, or a pickle of its objects, behind the BUILD of the
    /// record that describes it.
    fn array_behind<S: Stream<'a>>(
        &mut self,
        decoder: &mut Decoder<'a, S>,
        offset: u64,
    ) -> Result<(), Error> {
        let failed = |detail| Error::new(offset, Some(Opcode::Build), detail);
        let top = self.top().map_err(failed)?;
        let Some(announced) = Arena(&self.values).announced_array(top) else { return Ok(()) };
        let start = decoder.offset();
        let behind = match announced.map_err(|needed| failed(Detail::Array { needed }))? {
            Announced::Pickle => {
                self.dialect = Dialect::Plain;
                let outer = std::mem::take(&mut self.stack);
                let (protocol, frame) = (self.protocol, decoder.swap_frame(None));
                decoder.jump(start);
                let root = self.run(decoder)?.ok_or_else(|| failed(Detail::StackEmpty))?;
                decoder.jump(decoder.offset());
                decoder.swap_frame(frame);
                (self.stack, self.protocol, self.dialect) = (outer, protocol, Dialect::Joblib);
                Behind::Pickle(root)
            }
            Announced::Bytes { bytes, padded } => {
                let mut at = start;
                if padded {
                    let pad = decoder.stream().peek(at, 1).map_err(|e| failed(Detail::read(&e)))?;
                    let pad =
                        pad.first().copied().ok_or_else(|| failed(Detail::End { needed: "an array" }))?;
                    at = at.saturating_add(1).saturating_add(u64::from(pad));
                }
                let left = decoder.stream().len().saturating_sub(at);
                if bytes > left || at > decoder.stream().len() {
                    return Err(failed(Detail::Bytes { length: bytes, left }));
                }
                let end = at.saturating_add(bytes);
                decoder.jump(end);
                Behind::Bytes(at..end)
            }
        };
        if let Ok(Value::Object(object)) = self.top_value() {
            object.behind = behind;
        }
        Ok(())
    }

    fn step(&mut self, instruction: Instruction<'a>) -> Result<Option<Id>, Detail> {
        self.operations = self.operations.saturating_add(1);
        if self.operations > self.limits.operations {
            return Err(Detail::Limit { what: "instructions", limit: self.limits.operations });
        }
        let opcode = instruction.opcode;
        match opcode {
            Opcode::Stop => return self.pop().map(Some),
            Opcode::Proto => self.proto(&instruction.argument)?,
            Opcode::Frame => {}
            Opcode::Mark => self.mark()?,
            Opcode::Pop => self.discard()?,
            Opcode::PopMark => drop(self.pop_to_mark()?),
            Opcode::Dup => {
                let top = self.top()?;
                self.push_id(top)?;
            }
            Opcode::None
            | Opcode::NewTrue
            | Opcode::NewFalse
            | Opcode::Int
            | Opcode::BinInt
            | Opcode::BinInt1
            | Opcode::BinInt2
            | Opcode::Long
            | Opcode::Long1
            | Opcode::Long4
            | Opcode::Float
            | Opcode::BinFloat => {
                let value = number(opcode, instruction.argument, self.limits.integer_bytes)?;
                self.push(value)?;
            }
            Opcode::String
            | Opcode::BinString
            | Opcode::ShortBinString
            | Opcode::BinBytes
            | Opcode::ShortBinBytes
            | Opcode::BinBytes8
            | Opcode::ByteArray8
            | Opcode::Unicode
            | Opcode::BinUnicode
            | Opcode::ShortBinUnicode
            | Opcode::BinUnicode8 => {
                let value = text(opcode, instruction.argument, &mut self.spellings)?;
                self.push(value)?;
            }
            Opcode::EmptyTuple => self.push(Value::Tuple(Vec::new()))?,
            Opcode::EmptyList => self.push(Value::List(Vec::new()))?,
            Opcode::EmptyDict => self.push(Value::Dict(Vec::new()))?,
            Opcode::EmptySet => self.push(Value::Set(Vec::new()))?,
            Opcode::Tuple | Opcode::List | Opcode::FrozenSet | Opcode::Dict => self.collect(opcode)?,
            Opcode::Tuple1 => self.tuple_of(1)?,
            Opcode::Tuple2 => self.tuple_of(2)?,
            Opcode::Tuple3 => self.tuple_of(3)?,
            Opcode::Append => {
                let item = self.pop()?;
                self.add_items(vec![item], opcode)?;
            }
            Opcode::Appends | Opcode::AddItems => {
                let items = self.pop_to_mark()?;
                self.add_items(items, opcode)?;
            }
            Opcode::SetItem => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(vec![(key, value)])?;
            }
            Opcode::SetItems => {
                let items = pairs(self.pop_to_mark()?)?;
                self.set_items(items)?;
            }
            Opcode::Build => self.build()?,
            Opcode::Put | Opcode::BinPut | Opcode::LongBinPut | Opcode::Memoize => {
                let place = match opcode {
                    Opcode::Memoize => self.stack.memoized as u64,
                    _ => memo_index(&instruction.argument)?,
                };
                self.remember(place)?;
            }
            Opcode::Get | Opcode::BinGet | Opcode::LongBinGet => {
                let index = memo_index(&instruction.argument)?;
                let place =
                    usize::try_from(index).ok().and_then(|i| self.stack.memo.get(i).copied().flatten());
                self.push_id(place.ok_or(Detail::MemoMissing { index })?)?;
            }
            Opcode::Global | Opcode::Inst | Opcode::StackGlobal => self.symbol(instruction)?,
            Opcode::Reduce | Opcode::NewObj | Opcode::NewObjEx | Opcode::Obj => self.object(opcode)?,
            Opcode::BinPersId => {
                let name = self.pop()?;
                self.push(Value::Persistent(name))?;
            }
            Opcode::PersId => {
                return Err(Detail::Refused { why: "a persistent reference as text is not read" });
            }
            Opcode::Ext1 | Opcode::Ext2 | Opcode::Ext4 => {
                return Err(Detail::Refused {
                    why: "a number of the extension registry stands for a name that the pickle does not tell",
                });
            }
            Opcode::NextBuffer | Opcode::ReadonlyBuffer => {
                return Err(Detail::Refused { why: "a buffer outside of the pickle is not there" });
            }
        }
        Ok(None)
    }

    fn proto(&mut self, argument: &Argument<'_>) -> Result<(), Detail> {
        match argument {
            Argument::Unsigned(protocol @ 0..=5) => {
                self.protocol = *protocol;
                Ok(())
            }
            Argument::Unsigned(protocol) => Err(Detail::Protocol { protocol: *protocol }),
            _ => Ok(()),
        }
    }

    // The stack.

    fn push(&mut self, value: Value<'a>) -> Result<(), Detail> {
        let id = self.store(value)?;
        self.push_id(id)
    }

    fn store(&mut self, value: Value<'a>) -> Result<Id, Detail> {
        let held = match &value {
            Value::Tuple(items) | Value::List(items) | Value::Set(items) | Value::FrozenSet(items) => {
                items.len().saturating_mul(size_of::<Id>())
            }
            Value::Dict(entries) => entries.len().saturating_mul(size_of::<(Id, Id)>()),
            Value::Long(Cow::Owned(bytes))
            | Value::Bytes(Cow::Owned(bytes))
            | Value::ByteArray(Cow::Owned(bytes)) => bytes.len(),
            Value::Str(Cow::Owned(text)) => text.len(),
            Value::Symbol(symbol) => symbol.module.len().saturating_add(symbol.name.len()),
            _ => 0,
        };
        self.spend(size_of::<Value<'_>>().saturating_add(held))?;
        let limit = u64::from(u32::MAX);
        let id = u32::try_from(self.values.len()).map_err(|_| Detail::Limit { what: "values", limit })?;
        self.values.push(value);
        Ok(Id(id))
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Detail> {
        self.spent = self.spent.saturating_add(bytes as u64);
        let limit = self.limits.value_bytes;
        if self.spent > limit { Err(Detail::Limit { what: "bytes of values", limit }) } else { Ok(()) }
    }

    fn push_id(&mut self, id: Id) -> Result<(), Detail> {
        if self.stack.values.len() >= self.limits.stack {
            return Err(Detail::Limit { what: "values on the stack", limit: self.limits.stack as u64 });
        }
        self.stack.values.push(id);
        Ok(())
    }

    fn mark(&mut self) -> Result<(), Detail> {
        if self.stack.marks.len() >= self.limits.stack {
            return Err(Detail::Limit { what: "marks on the stack", limit: self.limits.stack as u64 });
        }
        self.stack.marks.push(self.stack.values.len());
        Ok(())
    }

    /// The height below which an instruction sees nothing.
    fn floor(&self) -> usize {
        self.stack.marks.last().copied().unwrap_or_default()
    }

    fn top(&self) -> Result<Id, Detail> {
        let top = self.stack.values.last().filter(|_| self.stack.values.len() > self.floor());
        top.copied().ok_or(Detail::StackEmpty)
    }

    fn pop(&mut self) -> Result<Id, Detail> {
        let top = self.top()?;
        self.stack.values.pop();
        Ok(top)
    }

    /// POP takes a mark where nothing stands above it, as Python's does.
    fn discard(&mut self) -> Result<(), Detail> {
        if self.stack.values.len() == self.floor() && self.stack.marks.pop().is_some() {
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Detail> {
        let height = self.stack.marks.pop().ok_or(Detail::NoMark)?;
        Ok(self.stack.values.split_off(height.min(self.stack.values.len())))
    }

    // Containers.

    fn collect(&mut self, opcode: Opcode) -> Result<(), Detail> {
        let items = self.pop_to_mark()?;
        let value = match opcode {
            Opcode::Tuple => Value::Tuple(items),
            Opcode::List => Value::List(items),
            Opcode::FrozenSet => Value::FrozenSet(items),
            _ => Value::Dict(pairs(items)?),
        };
        self.push(value)
    }

    fn tuple_of(&mut self, count: usize) -> Result<(), Detail> {
        let start = self.stack.values.len().checked_sub(count).filter(|start| *start >= self.floor());
        let items = self.stack.values.split_off(start.ok_or(Detail::StackEmpty)?);
        self.push(Value::Tuple(items))
    }

    fn top_value(&mut self) -> Result<&mut Value<'a>, Detail> {
        let top = self.top()?;
        self.values.get_mut(top.0 as usize).ok_or(Detail::StackEmpty)
    }

    fn add_items(&mut self, items: Vec<Id>, opcode: Opcode) -> Result<(), Detail> {
        self.spend(items.len().saturating_mul(size_of::<Id>()))?;
        let needed = if opcode == Opcode::AddItems { "a set" } else { "a list" };
        match self.top_value()? {
            Value::Set(set) if opcode == Opcode::AddItems => set.extend(items),
            Value::List(list) if opcode != Opcode::AddItems => list.extend(items),
            Value::Object(object) => object.items.extend(items),
            other => return Err(Detail::Kind { found: other.kind(), needed }),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<(Id, Id)>) -> Result<(), Detail> {
        self.spend(items.len().saturating_mul(size_of::<(Id, Id)>()))?;
        match self.top_value()? {
            Value::Dict(dict) => dict.extend(items),
            Value::Object(object) => object.entries.extend(items),
            other => return Err(Detail::Kind { found: other.kind(), needed: "a dict" }),
        }
        Ok(())
    }

    /// BUILD notes the state on our own record of an object. A symbol has none: Python would set
    /// attributes of what it imported.
    fn build(&mut self) -> Result<(), Detail> {
        let state = self.pop()?;
        self.spend(size_of::<Id>())?;
        match self.top_value()? {
            Value::Object(object) => object.states.push(state),
            other => return Err(Detail::Kind { found: other.kind(), needed: "an object" }),
        }
        Ok(())
    }

    fn remember(&mut self, index: u64) -> Result<(), Detail> {
        let top = self.top()?;
        let limit = self.limits.memo;
        let place = usize::try_from(index).ok().filter(|place| *place < limit);
        let place = place.ok_or(Detail::Limit { what: "entries of the memo", limit: limit as u64 })?;
        if place >= self.stack.memo.len() {
            // A pickle may store number 1,000,000 first: what lies between is paid for.
            let grown = place.saturating_add(1);
            self.spend(grown.saturating_sub(self.stack.memo.len()).saturating_mul(size_of::<Option<Id>>()))?;
            self.stack.memo.resize(grown, None);
        }
        if let Some(entry) = self.stack.memo.get_mut(place)
            && entry.replace(top).is_none()
        {
            self.stack.memoized = self.stack.memoized.saturating_add(1);
        }
        Ok(())
    }

    // Names and records.

    fn symbol(&mut self, instruction: Instruction<'a>) -> Result<(), Detail> {
        let Instruction { offset, opcode, argument } = instruction;
        let (module, name) = match argument {
            Argument::TwoLines(module, name) => (utf8(module)?, utf8(name)?),
            _ => {
                let name = self.pop_text()?;
                (self.pop_text()?, name)
            }
        };
        let symbol = self.canonical(module, name);
        let value = self.store(Value::Symbol(symbol))?;
        self.spend(size_of::<SymbolUse>())?;
        self.symbols.push(SymbolUse { offset, opcode, value });
        if opcode != Opcode::Inst {
            return self.push_id(value);
        }
        let arguments = self.pop_to_mark()?;
        let arguments = self.store(Value::Tuple(arguments))?;
        self.record(Made::Instance, value, arguments, None)
    }

    fn canonical(&self, module: Cow<'a, str>, name: Cow<'a, str>) -> Symbol<'a> {
        if self.protocol > PYTHON2_PROTOCOL {
            return Symbol { module, name };
        }
        let (new_module, new_name) = python3_name(&module, &name);
        if (new_module, new_name) == (&*module, &*name) {
            return Symbol { module, name };
        }
        Symbol { module: Cow::Owned(new_module.to_owned()), name: Cow::Owned(new_name.to_owned()) }
    }

    fn pop_text(&mut self) -> Result<Cow<'a, str>, Detail> {
        let id = self.pop()?;
        match self.values.get(id.0 as usize) {
            Some(Value::Str(text)) => Ok(text.clone()),
            Some(other) => Err(Detail::Kind { found: other.kind(), needed: "text" }),
            None => Err(Detail::StackEmpty),
        }
    }

    fn object(&mut self, opcode: Opcode) -> Result<(), Detail> {
        if opcode == Opcode::Obj {
            let mut items = self.pop_to_mark()?;
            if items.is_empty() {
                return Err(Detail::StackEmpty);
            }
            let callable = items.remove(0);
            let arguments = self.store(Value::Tuple(items))?;
            return self.record(Made::Instance, callable, arguments, None);
        }
        let keywords = if opcode == Opcode::NewObjEx { Some(self.pop()?) } else { None };
        let arguments = self.pop()?;
        let callable = self.pop()?;
        let made = if opcode == Opcode::Reduce { Made::Call } else { Made::New };
        self.record(made, callable, arguments, keywords)
    }

    fn record(
        &mut self,
        made: Made,
        callable: Id,
        arguments: Id,
        keywords: Option<Id>,
    ) -> Result<(), Detail> {
        self.push(Value::Object(Object {
            made,
            callable,
            arguments,
            keywords,
            states: Vec::new(),
            items: Vec::new(),
            entries: Vec::new(),
            behind: Behind::Nothing,
        }))
    }
}

fn pairs(items: Vec<Id>) -> Result<Vec<(Id, Id)>, Detail> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Detail::OddItems);
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

fn memo_index(argument: &Argument<'_>) -> Result<u64, Detail> {
    match argument {
        Argument::Unsigned(index) => Ok(*index),
        Argument::Bytes(line) => {
            let text = std::str::from_utf8(line).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            text.and_then(|text| text.parse().ok())
                .ok_or(Detail::Number { needed: "the number of a memo entry" })
        }
        _ => Err(Detail::Number { needed: "the number of a memo entry" }),
    }
}
