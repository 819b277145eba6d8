//! A walk over the bare instructions of a pickle that the machine could not follow to its end.
//!
//! Knows texts and the memo of texts, and nothing of the stack: enough to name what GLOBAL, INST and
//! STACK_GLOBAL import. It may name too much, and is used for what the machine did not see alone.

use std::{borrow::Cow, collections::HashMap};

use tensafe_pickle::{Argument, Decoder, Error, Instruction, Opcode, Symbol};

use super::{full_name, rule_of};
use crate::{
    Finding,
    preview::named,
    scan::{Place, Scan},
    symbols::{self, Judgement},
};

/// Whether the instruction that failed is whole, and only the frame around it forbids it.
pub(super) fn is_frame_broken(error: &Error) -> bool {
    let text = error.to_string();
    text.contains("crosses the frame") || text.contains("begins within another")
}

/// Judges the symbols that stand at `from` or after.
pub(super) fn judge_rest(bytes: &[u8], from: usize, place: &Place<'_>, scan: &mut Scan<'_>) {
    let mut walk = Walk::default();
    let mut base = 0usize;
    let mut decoder = Decoder::new(bytes);
    let mut left = scan.options.limits.pickle.operations;
    loop {
        left = left.saturating_sub(1);
        let instruction = match decoder.next_instruction() {
            Ok(Some(instruction)) if left > 0 => instruction,
            Err(error) if is_frame_broken(&error) => {
                // Go on without the frame: C and Python readers disagree on what it means.
                let at = base.saturating_add(error.offset());
                let skip = if error.opcode() == Some(Opcode::Frame) { 9 } else { 0 };
                let next = at.saturating_add(skip);
                let Some(rest) = bytes.get(next..).filter(|_| next > base) else { return };
                (base, decoder) = (next, Decoder::new(rest));
                continue;
            }
            _ => return,
        };
        let offset = base.saturating_add(instruction.offset);
        let found = walk.step(&instruction);
        if let Some(symbol) = found.filter(|_| offset >= from) {
            report(&symbol, offset, instruction.opcode, place, scan);
        }
    }
}

fn report(symbol: &Symbol<'_>, offset: usize, opcode: Opcode, place: &Place<'_>, scan: &mut Scan<'_>) {
    // Where data is read as instructions, nonsense is no sign of deceit.
    let judgement = symbols::judge(symbol);
    let Some(rule) = rule_of(judgement, true).filter(|_| judgement != Judgement::Deceptive) else { return };
    let name = full_name(symbol);
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
    fn step(&mut self, instruction: &Instruction<'a>) -> Option<Symbol<'a>> {
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
                let index = std::str::from_utf8(line).ok().and_then(|text| text.parse().ok());
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

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
