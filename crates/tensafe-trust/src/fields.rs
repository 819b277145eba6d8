//! The fields of a structured array of numpy, as its header writes them: whether any holds objects.
//!
//! numpy knows a dtype by many words, `object` among them. What is not spelled as numpy writes it is not
//! understood.

/// What the fields of an array hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fields {
    /// Numbers, texts and bytes alone.
    Plain,
    /// What is not known.
    Unknown,
    /// Objects.
    Objects,
}

/// Lists in lists: numpy's own limit of nested expressions is of that order.
const MOST_LAYERS: usize = 64;

pub(crate) fn judge(text: &str) -> Fields {
    let mut reader = Reader { rest: text, found: Fields::Plain };
    let read = reader.list(0).filter(|()| reader.rest.trim().is_empty());
    if read.is_some() { reader.found } else { reader.found.max(Fields::Unknown) }
}

struct Reader<'t> {
    rest: &'t str,
    found: Fields,
}

impl<'t> Reader<'t> {
    /// Takes the mark, if it is next.
    fn take(&mut self, mark: char) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(mark)?;
        Some(())
    }

    fn next_is(&self, marks: &[char]) -> bool {
        self.rest.trim_start().starts_with(marks)
    }

    /// What stands between commas, up to the closing mark.
    fn items(&mut self, close: char, mut item: impl FnMut(&mut Self, usize) -> Option<()>) -> Option<()> {
        let mut place = 0;
        while self.take(close).is_none() {
            if place > 0 {
                self.take(',')?;
                if self.take(close).is_some() {
                    return Some(());
                }
            }
            item(self, place)?;
            place += 1;
        }
        Some(())
    }

    fn list(&mut self, layer: usize) -> Option<()> {
        if layer > MOST_LAYERS {
            return None;
        }
        self.take('[')?;
        self.items(']', |reader, _| {
            reader.take('(')?;
            reader.items(')', |reader, place| match place {
                0 => reader.name(),
                1 => reader.dtype(layer),
                2 => reader.shape(),
                _ => None,
            })
        })
    }

    /// A name, or a title and a name.
    fn name(&mut self) -> Option<()> {
        if self.take('(').is_some() {
            return self.items(')', |reader, _| reader.text().map(drop));
        }
        self.text().map(drop)
    }

    fn dtype(&mut self, layer: usize) -> Option<()> {
        if self.next_is(&['[']) {
            return self.list(layer.saturating_add(1));
        }
        let code = self.text()?;
        self.found = self.found.max(of_code(code));
        Some(())
    }

    fn shape(&mut self) -> Option<()> {
        if self.take('(').is_some() {
            return self.items(')', |reader, _| reader.number());
        }
        self.number()
    }

    fn number(&mut self) -> Option<()> {
        let rest = self.rest.trim_start();
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        self.rest = rest.get(digits..)?;
        (digits > 0).then_some(())
    }

    /// A text without the marks around it, as it is written.
    fn text(&mut self) -> Option<&'t str> {
        let rest = self.rest.trim_start();
        let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let body = rest.get(1..)?;
        let mut escaped = false;
        for (at, c) in body.char_indices() {
            if !escaped && c == quote {
                self.rest = body.get(at.saturating_add(1)..)?;
                return body.get(..at);
            }
            escaped = !escaped && c == '\\';
        }
        None
    }
}

/// A dtype as numpy writes it: an order, a letter, a size, and the unit of a time.
fn of_code(code: &str) -> Fields {
    let letter = code.strip_prefix(['<', '>', '|', '=']).unwrap_or(code);
    let mut chars = letter.chars();
    let (kind, rest) = (chars.next(), chars.as_str());
    let size = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    match kind {
        Some('O') if size.is_empty() => Fields::Objects,
        Some('?' | 'b' | 'i' | 'u' | 'f' | 'c' | 'S' | 'a' | 'U' | 'V') if size.is_empty() => Fields::Plain,
        Some('m' | 'M') if size.is_empty() || (size.starts_with('[') && size.ends_with(']')) => Fields::Plain,
        _ => Fields::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::{Fields, judge};

    #[test]
    fn fields_are_plain_hold_objects_or_are_not_known() {
        for (text, fields) in [
            ("[('a', '<f8'), ('b', '|S5', (2, 3)), ('c', '<M8[ns]'), ]", Fields::Plain),
            ("[('Object', '<i4'), (('O', 'n'), '|u1', 4), (\"it's\", '?')]", Fields::Plain),
            ("[('a', [('b', '<f4'), ('c', '|V3')], (2,))]", Fields::Plain),
            ("[('a', '|O')]", Fields::Objects),
            ("[('a', '<f8'), ('b', [('c', 'O8')])]", Fields::Objects),
            ("[('a', 'object')]", Fields::Unknown),
            ("[('a', 'o')]", Fields::Unknown),
            ("[('a', '<f8,O')]", Fields::Unknown),
            ("[('a', '\\x4f')]", Fields::Unknown),
            ("[('a', ('O', (2,)))]", Fields::Unknown),
            ("[('a', {'names': ['b']})]", Fields::Unknown),
            ("[('a\\'', '<f8'), ('b', 'O'", Fields::Objects),
            ("[('a', '<f8')] + [('b', 'x')]", Fields::Unknown),
            ("[('a')]", Fields::Plain),
            ("", Fields::Unknown),
        ] {
            assert_eq!(judge(text), fields, "{text}");
        }
        assert_eq!(judge(&"[('a', ".repeat(10_000)), Fields::Unknown);
    }
}
