//! A walk over the bare instructions of a pickle that the machine could not follow to its end.
//!
//! Knows texts and the memo of texts, and nothing of the stack: enough to name what GLOBAL, INST and
//! STACK_GLOBAL import. It may name too much, and is used for what the machine did not see alone.

use std::{borrow::Cow, collections::HashMap};

use tensafe_pickle::{Argument, Decoder, Error, Instruction, Opcode, Symbol};

use super::rule_of;
use crate::{
    Finding,
    input::Input,
    preview::named,
    scan::{Place, Scan},
    symbols::{self, Judgement},
};

/// A FRAME and its length.
const FRAME_BYTES: u64 = 9;

/// Whether the instruction that failed is whole, and only the frame around it forbids it.
pub(super) fn is_frame_broken(error: &Error) -> bool {
    let text = error.to_string();
    text.contains("crosses the frame") || text.contains("begins within another")
}

/// Judges the symbols that stand at `from` or after, of the pickle that begins at `start`.
pub(super) fn judge_rest(input: &Input, start: u64, from: u64, place: Place<'_>, scan: &mut Scan<'_>) {
    let mut walk = Walk::default();
    let mut decoder = Decoder::starting_at(input.stream(), start);
    for _ in 0..scan.options.limits.pickle.operations {
        match decoder.next_instruction() {
            Ok(Some(instruction)) => {
                let (offset, opcode) = (instruction.offset, instruction.opcode);
                let found = walk.step(instruction);
                if let Some(symbol) = found.filter(|_| offset >= from) {
                    report(&symbol, offset, opcode, place, scan);
                }
            }
            Err(error) if is_frame_broken(&error) => {
                // Go on without the frame: readers of pickles disagree on what it means.
                let frame = if error.opcode() == Some(Opcode::Frame) { FRAME_BYTES } else { 0 };
                decoder = Decoder::starting_at(input.stream(), error.offset().saturating_add(frame));
            }
            _ => return,
        }
    }
}

fn report(symbol: &Symbol<'_>, offset: u64, opcode: Opcode, place: Place<'_>, scan: &mut Scan<'_>) {
    // Where data is read as instructions, nonsense is no sign of deceit.
    let judgement = symbols::judge(symbol);
    let Some(rule) = rule_of(judgement, true).filter(|_| judgement != Judgement::Deceptive) else { return };
    let name = symbol.to_string();
    let message = format!("imports {} after the pickle breaks", named(&name));
    scan.add(place, Finding::new(rule, message).of_symbol(name).by(opcode.name()).at(offset));
}

/// The texts that were pushed last, and those that were stored.
#[derive(Default)]
struct Walk<'a> {
    last: [Option<Cow<'a, str>>; 2],
    memo: HashMap<u64, Cow<'a, str>>,
    memoized: u64,
    /// Whether the text at the end of `last` is what stands on top of the stack.
    fresh: bool,
}

impl<'a> Walk<'a> {
    fn step(&mut self, instruction: Instruction<'a>) -> Option<Symbol<'a>> {
        let opcode = instruction.opcode;
        match (opcode, instruction.argument) {
            (Opcode::Global | Opcode::Inst, Argument::TwoLines(module, name)) => {
                self.fresh = false;
                return Some(Symbol { module: lossy(module), name: lossy(name) });
            }
            (Opcode::StackGlobal, _) => {
                self.fresh = false;
                let [module, name] = self.last.clone();
                return Some(Symbol { module: module?, name: name? });
            }
            (
                Opcode::Unicode | Opcode::BinUnicode | Opcode::ShortBinUnicode | Opcode::BinUnicode8,
                argument,
            ) => {
                if let Argument::Bytes(text) = argument {
                    self.push(lossy(text));
                }
            }
            (Opcode::Memoize, _) => {
                self.store(self.memoized);
                self.memoized = self.memoized.saturating_add(1);
            }
            (Opcode::BinPut | Opcode::LongBinPut, Argument::Unsigned(index)) => self.store(index),
            (Opcode::BinGet | Opcode::LongBinGet, Argument::Unsigned(index)) => self.fetch(index),
            (Opcode::Put | Opcode::Get, Argument::Bytes(line)) => {
                let index = std::str::from_utf8(&line).ok().and_then(|text| text.parse().ok());
                match index {
                    Some(index) if opcode == Opcode::Put => self.store(index),
                    Some(index) => self.fetch(index),
                    None => {}
                }
            }
            _ => self.fresh = false,
        }
        None
    }

    fn push(&mut self, text: Cow<'a, str>) {
        self.last.rotate_left(1);
        self.last[1] = Some(text);
        self.fresh = true;
    }

    fn store(&mut self, index: u64) {
        if let ([_, Some(text)], true) = (&self.last, self.fresh) {
            self.memo.insert(index, text.clone());
        }
    }

    fn fetch(&mut self, index: u64) {
        match self.memo.get(&index).cloned() {
            Some(text) => self.push(text),
            None => self.fresh = false,
        }
    }
}

fn lossy(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}
