//! The part of Python's literals that numpy writes headers with: one dictionary with text keys, of
//! texts, truth values, numbers, tuples and lists.

/// Deep enough for records within records.
const MOST_DEPTH: usize = 32;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Literal {
    Text(String),
    Bool(bool),
    Int(u64),
    Tuple(Vec<Self>),
    /// A list, as it is written.
    List {
        source: String,
    },
    Dict(Vec<(String, Self)>),
}

/// Where it went wrong, and what was needed there.
type Wrong = (usize, &'static str);

/// The literal that is the whole of `text`, but for space around it.
pub(super) fn parse(text: &str) -> Result<Literal, Wrong> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.space();
    if parser.at == text.len() { Ok(value) } else { Err((parser.at, "the end of the header")) }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        let rest = self.rest();
        let left = rest.trim_start_matches([' ', '\n', '\t', '\r']).len();
        self.at = self.at.saturating_add(rest.len().saturating_sub(left));
    }

    /// Skips space and takes `token` if it is next.
    fn take(&mut self, token: &str) -> bool {
        self.space();
        let is_next = self.rest().starts_with(token);
        if is_next {
            self.at = self.at.saturating_add(token.len());
        }
        is_next
    }

    fn need(&mut self, token: &'static str) -> Result<(), Wrong> {
        if self.take(token) { Ok(()) } else { Err((self.at, token)) }
    }

    fn value(&mut self, depth: usize) -> Result<Literal, Wrong> {
        if depth > MOST_DEPTH {
            return Err((self.at, "values within values 32 deep at most"));
        }
        self.space();
        let start = self.at;
        let inner = depth.saturating_add(1);
        match self.rest().chars().next() {
            Some('{') => self.dict(inner),
            Some('(') => {
                self.need("(")?;
                Ok(Literal::Tuple(self.items(")", inner)?))
            }
            Some('[') => {
                self.need("[")?;
                self.items("]", inner)?;
                let source = self.text.get(start..self.at).unwrap_or_default().to_owned();
                Ok(Literal::List { source })
            }
            Some('\'' | '"') => self.quoted().map(Literal::Text),
            Some('0'..='9') => self.number(),
            _ if self.take("True") => Ok(Literal::Bool(true)),
            _ if self.take("False") => Ok(Literal::Bool(false)),
            _ => Err((start, "a text, a number, True, False, a tuple, a list or a dictionary")),
        }
    }

    fn dict(&mut self, depth: usize) -> Result<Literal, Wrong> {
        self.need("{")?;
        let mut entries = Vec::new();
        while !self.take("}") {
            self.space();
            let key = self.quoted()?;
            self.need(":")?;
            entries.push((key, self.value(depth)?));
            if !self.take(",") {
                self.need("}")?;
                break;
            }
        }
        Ok(Literal::Dict(entries))
    }

    /// Values with commas between them, and maybe behind the last.
    fn items(&mut self, close: &'static str, depth: usize) -> Result<Vec<Literal>, Wrong> {
        let mut items = Vec::new();
        while !self.take(close) {
            items.push(self.value(depth)?);
            if !self.take(",") {
                self.need(close)?;
                // Brackets around one value are no tuple.
                if close == ")" && items.len() == 1 {
                    return Err((self.at, "a comma in a tuple of one"));
                }
                break;
            }
        }
        Ok(items)
    }

    /// A text without escapes: names of fields have none that numpy would write.
    fn quoted(&mut self) -> Result<String, Wrong> {
        let needed = "a text in quotes, without backslashes";
        let Some(quote @ ('\'' | '"')) = self.rest().chars().next() else { return Err((self.at, needed)) };
        let rest = self.rest().get(1..).unwrap_or_default();
        let end = rest
            .find([quote, '\\', '\n'])
            .filter(|end| rest.get(*end..).is_some_and(|r| r.starts_with(quote)));
        let Some(text) = end.and_then(|end| rest.get(..end)) else { return Err((self.at, needed)) };
        self.at = self.at.saturating_add(text.len()).saturating_add(2);
        Ok(text.to_owned())
    }

    /// A number, with the `L` that Python 2 may have put behind it.
    fn number(&mut self) -> Result<Literal, Wrong> {
        let rest = self.rest();
        let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let digits = rest.get(..len).unwrap_or_default();
        let needed = "a number below 2^64 without leading zeros";
        if digits.len() > 1 && digits.starts_with('0') {
            return Err((self.at, needed));
        }
        let number = digits.parse().map_err(|_| (self.at, needed))?;
        self.at = self.at.saturating_add(len);
        if self.rest().starts_with('L') {
            self.at = self.at.saturating_add(1);
        }
        Ok(Literal::Int(number))
    }
}
